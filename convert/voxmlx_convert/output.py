"""A folder that appears only when it is whole.

Everything is written into a hidden folder beside the target, which is renamed at the end. A killed
run leaves the hidden one, without its configuration or with a file cut short, so it does not load.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from voxmlx.checkpoints.safetensors import output_error
from voxmlx.errors import OutputError

SPARE_BYTES = 64_000_000
"""Room kept for the tokenizer (15 MB), the index and the rest of the small files."""


@contextmanager
def new_folder(target: Path, overwrite: bool = False) -> Iterator[Path]:
    """Give a hidden folder to write into, and rename it to ``target`` at the end.

    Args:
        target: The folder to make.
        overwrite: Replace one that is there; otherwise that is an error.

    Raises:
        OutputError: If the target exists or cannot be made.
    """
    check_target(target, overwrite)
    hidden = target.parent / f".{target.name}.partial-{os.getpid()}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(target)
        hidden.mkdir()
    except OSError as error:
        raise output_error(target, error) from error
    try:
        yield hidden
        _move(hidden, target)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def check_target(target: Path, overwrite: bool) -> None:
    """Check that a folder may be made.

    Raises:
        OutputError: If something is there already.
    """
    if target.exists() and not target.is_dir():
        raise OutputError(f"{target}: a file of this name exists; choose another folder")
    if target.exists() and not overwrite:
        raise OutputError(f"{target}: the folder exists; use --overwrite to replace it")


def check_space(target: Path, nbytes: int) -> None:
    """Check that the disk has room.

    Raises:
        OutputError: If it does not.
    """
    parent = target.absolute().parent
    while not parent.exists():
        parent = parent.parent
    free = shutil.disk_usage(parent).free
    if free < nbytes + SPARE_BYTES:
        raise OutputError(
            f"{target}: {(nbytes + SPARE_BYTES) / 1e9:.2f} GB are needed, the disk has "
            f"{free / 1e9:.2f} GB free"
        )


def _move(hidden: Path, target: Path) -> None:
    """Rename, putting an old target aside until that is done."""
    old = hidden.with_name(f"{hidden.name}-old")
    try:
        if target.exists():
            target.rename(old)
        hidden.rename(target)
    except OSError as error:
        if old.exists() and not target.exists():
            old.rename(target)
        raise output_error(target, error) from error
    shutil.rmtree(old, ignore_errors=True)


def _remove_abandoned(target: Path) -> None:
    """Delete what killed runs for the same target left behind."""
    prefix = f".{target.name}.partial-"
    for folder in target.parent.iterdir():
        pid = folder.name.removeprefix(prefix)
        if folder.name.startswith(prefix) and pid.isdigit() and not _is_running(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
