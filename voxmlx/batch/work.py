"""The work of one device: transcribe items and put their outputs into the store."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from voxmlx.batch.inputs import Item
from voxmlx.batch.plan import ERROR_SUFFIX, is_done
from voxmlx.batch.remote import filesystem, is_url
from voxmlx.batch.store import Store
from voxmlx.engine.files import transcribe_files
from voxmlx.errors import AudioError
from voxmlx.offline import OfflinePipeline
from voxmlx.pipeline import Pipeline
from voxmlx.streaming.files import FileResult
from voxmlx.writers import get_writer


@dataclass(frozen=True)
class Done:
    """News of one item: the audio it held, or why it was set aside."""

    item: Item
    audio_s: float
    error: str | None = None


def work(
    pipeline: Pipeline | OfflinePipeline,
    items: Iterable[Item],
    store: Store,
    formats: Sequence[str],
    *,
    rows: int = 1,
    check: bool = False,
    **options: Any,
) -> Iterator[Done]:
    """Transcribe items and tell of each when its outputs are safe.

    Args:
        pipeline: The model.
        items: Recordings.
        store: Where outputs go.
        formats: Names of formats, as :func:`voxmlx.writers.get_writer` knows them.
        rows: Recordings worked on at a time.
        check: Whether to pass over items that somebody has done since the plan was made.
        options: See :func:`voxmlx.engine.files.transcribe_files`.

    Raises:
        OutputError: If an output cannot be written.
    """
    broken: list[Done] = []
    sources = _sources(items, store, formats, check, broken)
    for done in transcribe_files(pipeline, sources, rows=rows, **options):
        yield from _settle(broken, store)
        yield _write(done, store, formats)
    yield from _settle(broken, store)


def _sources(
    items: Iterable[Item], store: Store, formats: Sequence[str], check: bool, broken: list[Done]
) -> Iterator[tuple[Item, str | BinaryIO]]:
    for item in items:
        if check and is_done(item, store, formats):
            continue
        if not is_url(item.source):
            yield item, item.source
            continue
        try:
            yield item, _open_url(item.source)
        except (OSError, AudioError) as error:
            broken.append(Done(item, 0.0, f"{item.source}: cannot be read: {error}"))


def _open_url(url: str) -> BinaryIO:
    """The whole file in memory: a recording is read more than once, and from several places."""
    files, path = filesystem(url)
    data: bytes = files.cat_file(path)
    return io.BytesIO(data)


def _settle(broken: list[Done], store: Store) -> Iterator[Done]:
    while broken:
        done = broken.pop(0)
        _set_aside(done.item, str(done.error), store)
        yield done


def _write(done: FileResult[Item], store: Store, formats: Sequence[str]) -> Done:
    if done.result is None:
        _set_aside(done.key, str(done.error), store)
        return Done(done.key, 0.0, str(done.error))
    for format in formats:
        text = io.StringIO()
        get_writer(format)(done.result, text)
        store.write(f"{done.key.name}.{format}", text.getvalue())
    return Done(done.key, done.result.duration_s)


def _set_aside(item: Item, reason: str, store: Store) -> None:
    values = {"input": item.source, "error": reason}
    store.write(item.name + ERROR_SUFFIX, json.dumps(values, ensure_ascii=False) + "\n")
