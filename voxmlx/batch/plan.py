"""What is left to do: items against what lies in the store.

A recording is done when its last output is there, or when it was set aside as unreadable; then
``NAME.error.json`` holds the reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from voxmlx.batch.inputs import Item
from voxmlx.batch.store import Store
from voxmlx.errors import OutputError

SETTINGS_FILE = ".voxmlx-batch.json"
ERRORS_FILE = "errors.jsonl"
ERROR_SUFFIX = ".error.json"


@dataclass(frozen=True)
class Plan:
    """What a run finds.

    Attributes:
        todo: Recordings without outputs.
        n_done: How many have theirs.
        n_failed: How many were set aside before.
    """

    todo: list[Item]
    n_done: int
    n_failed: int


def check_settings(store: Store, settings: Mapping[str, Any]) -> None:
    """Note with what the outputs are made, or compare with what an earlier run noted.

    Raises:
        OutputError: If the folder holds outputs of other settings.
    """
    if not store.exists(SETTINGS_FILE):
        store.write(SETTINGS_FILE, json.dumps(dict(settings), indent=2, sort_keys=True) + "\n")
        return
    try:
        earlier = json.loads(store.read(SETTINGS_FILE))
        changed = [name for name in settings if earlier.get(name) != settings[name]]
    except (ValueError, AttributeError) as error:
        raise OutputError(f"{SETTINGS_FILE} of the output folder is damaged; delete it") from error
    if changed:
        name = changed[0]
        raise OutputError(
            f"the output folder was made with {name}={earlier.get(name)!r}, not "
            f"{settings[name]!r}; take another folder"
        )


def make_plan(
    items: Sequence[Item], store: Store, formats: Sequence[str], retry_errors: bool = False
) -> Plan:
    """Sort out what is left.

    Args:
        items: Every recording.
        store: Where the outputs are.
        formats: Suffixes of the outputs of one recording, in the order in which they are written.
        retry_errors: Whether recordings that were set aside are tried again.
    """
    there = store.names()
    todo, n_failed = [], 0
    for item in items:
        if f"{item.name}.{formats[-1]}" in there:
            continue
        if item.name + ERROR_SUFFIX in there:
            if not retry_errors:
                n_failed += 1
                continue
            store.remove(item.name + ERROR_SUFFIX)
        todo.append(item)
    return Plan(todo, len(items) - len(todo) - n_failed, n_failed)


def is_done(item: Item, store: Store, formats: Sequence[str]) -> bool:
    """Whether one recording is done by now."""
    return store.exists(f"{item.name}.{formats[-1]}") or store.exists(item.name + ERROR_SUFFIX)


def write_errors(items: Iterable[Item], store: Store) -> int:
    """List the recordings that were set aside in one file; returns how many there are."""
    there = store.names()
    entries = [
        json.loads(store.read(item.name + ERROR_SUFFIX))
        for item in items
        if item.name + ERROR_SUFFIX in there
    ]
    if entries:
        rows = (json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
        store.write(ERRORS_FILE, "".join(rows))
    else:
        store.remove(ERRORS_FILE)
    return len(entries)
