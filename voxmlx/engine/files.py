"""Many recordings through one model, several rows at a time. Knows neither outputs nor servers.

A row that ends gives its place to the next recording at once, so that the batch stays full.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from voxmlx.audio.decode import AudioReader, open_audio
from voxmlx.engine.pool import Pool, PooledBackend
from voxmlx.engine.scheduler import MAX_SLICE
from voxmlx.errors import AudioError
from voxmlx.generation.batch import MAX_STEP
from voxmlx.generation.row import SpecialIds
from voxmlx.offline import OfflinePipeline
from voxmlx.pipeline import AudioSource, Pipeline
from voxmlx.streaming.options import StreamOptions
from voxmlx.streaming.session import StreamingSession
from voxmlx.types import Transcription

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class FileResult(Generic[K]):
    """What became of one recording.

    Attributes:
        key: The caller's name of it.
        result: Its transcription, or ``None`` where it cannot be read.
        error: Why it cannot be read.
        seconds: Wall clock from its opening to its end; rows that ran beside it share that time.
    """

    key: K
    result: Transcription | None
    error: AudioError | None
    seconds: float


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
        rows: Recordings worked on at a time, 1 to 128. The offline model takes one.
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
    run: _Rows[K] = _Rows(pipeline, rows, transcription_delay_ms, filled)
    yield from run.work(iter(files))


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


@dataclass(eq=False)
class _Row(Generic[K]):
    """A recording in work."""

    key: K
    reader: AudioReader
    chunks: Iterator[np.ndarray]
    backend: PooledBackend
    session: StreamingSession
    started: float

    def feed(self) -> None:
        """Give the session what it has work for; closes it at the end of the audio.

        Raises:
            AudioError: If the recording is damaged from here on.
        """
        while not self.session.pending:
            samples = next(self.chunks, None)
            if samples is None:
                self.session.close()
            else:
                self.session.feed(samples)

    def close(self) -> None:
        """Give everything back."""
        self.reader.close()
        self.backend.close()


class _Rows(Generic[K]):
    """The rows of one run.

    Args:
        pipeline: The model.
        rows: Most rows.
        delay_ms: Delay of all rows.
        options: How all rows decode.
    """

    def __init__(self, pipeline: Pipeline, rows: int, delay_ms: int | None, options: StreamOptions):
        tokenizer = pipeline.tokenizer
        ids = SpecialIds(tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id)
        self._pipeline = pipeline
        self._pool = Pool(pipeline.model, ids, rows, MAX_SLICE, MAX_STEP, options.kv)
        self._n_rows = rows
        self._delay_ms = delay_ms
        self._options = options
        self._rows: list[_Row[K]] = []

    def work(self, files: Iterator[tuple[K, AudioSource]]) -> Iterator[FileResult[K]]:
        """Work until there are no more files and no more rows."""
        more = True
        try:
            while more or self._rows:
                while more and len(self._rows) < self._n_rows:
                    entry = next(files, None)
                    if entry is None:
                        more = False
                    else:
                        yield from self._open(*entry)
                yield from self._tick()
        finally:
            for row in self._rows:
                row.close()

    def _open(self, key: K, source: AudioSource) -> Iterator[FileResult[K]]:
        started = time.perf_counter()
        try:
            reader = open_audio(source)
        except AudioError as error:
            yield FileResult(key, None, error, time.perf_counter() - started)
            return
        backend = PooledBackend(self._pool)
        try:
            session = StreamingSession(
                self._pipeline.model,
                self._pipeline.tokenizer,
                transcription_delay_ms=self._delay_ms,
                options=self._options,
                encode_rows=self._pool.max_positions,
                backend=backend,
            )
        except BaseException:
            reader.close()
            backend.close()
            raise
        self._rows.append(_Row(key, reader, iter(reader), backend, session, started))

    def _tick(self) -> Iterator[FileResult[K]]:
        for row in list(self._rows):
            try:
                row.feed()
            except AudioError as error:
                yield self._end(row, None, error)
        if not self._rows:
            return
        self._pool.encode({row.backend: self._pool.max_positions for row in self._rows})
        while True:
            for row in self._rows:
                row.session.step()
            if not self._pool.decode():
                break
        for row in list(self._rows):
            row.session.step()
            if row.session.done:
                yield self._end(row, row.session.result(), None)

    def _end(
        self, row: _Row[K], result: Transcription | None, error: AudioError | None
    ) -> FileResult[K]:
        row.close()
        self._rows.remove(row)
        return FileResult(row.key, result, error, time.perf_counter() - row.started)
