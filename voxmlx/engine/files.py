"""Many recordings through any model: realtime ones as rows of a batch, offline ones in turn."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable, Iterator
from typing import Any, TypeVar

from voxmlx.errors import AudioError
from voxmlx.offline import OfflinePipeline
from voxmlx.pipeline import AudioSource, Pipeline
from voxmlx.streaming.files import FileResult, FileRows
from voxmlx.streaming.options import StreamOptions

K = TypeVar("K", bound=Hashable)


def transcribe_files(
    pipeline: Pipeline | OfflinePipeline,
    files: Iterable[tuple[K, AudioSource]],
    *,
    rows: int = 1,
    transcription_delay_ms: int | None = None,
    **options: Any,
) -> Iterator[FileResult[K]]:
    """Transcribe recordings and give each result when it is complete.

    Args:
        pipeline: The model.
        files: Keys and recordings; they are opened when a row is free.
        rows: Recordings worked on at a time, 1 to 64. The offline model takes one.
        transcription_delay_ms: See :meth:`voxmlx.pipeline.Pipeline.generate`.
        options: Fields of :class:`voxmlx.streaming.options.StreamOptions`; what is not given is
            as for files, see :meth:`voxmlx.pipeline.Pipeline.file_session`.

    Yields:
        Results in the order in which they end.

    Raises:
        ValueError: If an option or the delay is not one of the model's.
    """
    if isinstance(pipeline, OfflinePipeline):
        if transcription_delay_ms is not None:
            raise ValueError("transcription_delay_ms: the offline model has no delay")
        options.pop("on_eos", None)  # its text ends once
        yield from _one_by_one(pipeline, files, options)
        return
    filled = StreamOptions(**{"on_eos": "stop", "rut_guard": False, **options})
    run: FileRows[K] = FileRows(
        pipeline.model, pipeline.tokenizer, rows, transcription_delay_ms, filled
    )
    yield from run.work(files)


def _one_by_one(
    pipeline: OfflinePipeline, files: Iterable[tuple[K, AudioSource]], options: dict[str, Any]
) -> Iterator[FileResult[K]]:
    for key, source in files:
        started = time.perf_counter()
        try:
            result, error = pipeline.generate(source, **options), None
        except AudioError as caught:
            result, error = None, caught
        yield FileResult(key, result, error, time.perf_counter() - started)
