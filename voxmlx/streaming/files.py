"""Recordings as rows of one batch: rows join, leave and share the device. Knows no outputs.

A row that ends gives its place to the next recording at once, so that the batch stays full.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import mlx.core as mx
import numpy as np

from voxmlx.audio.decode import AudioReader, open_audio
from voxmlx.errors import AudioError
from voxmlx.generation.batch import MAX_STEP
from voxmlx.generation.encode import GROUP_SIZES
from voxmlx.generation.row import SpecialIds
from voxmlx.models.voxtral_realtime import VoxtralRealtime
from voxmlx.streaming.options import StreamOptions
from voxmlx.streaming.pool import Pool, PooledBackend
from voxmlx.streaming.session import StreamingSession
from voxmlx.tokenizer import Tokenizer
from voxmlx.types import Transcription

K = TypeVar("K", bound=Hashable)

MAX_FILES = 64
"""Most recordings worked on at a time."""

GPU_POSITIONS = 128
"""Positions of one encoder call on a GPU, all rows together: 512 rows of its products."""


def file_positions(rows: int = 1) -> int:
    """Positions (80 ms) that one encoder call takes of each of some recordings.

    GPUs want large products: 4 s of one recording, or as much of several together; what a call
    leaves behind until the GPU is done grows with it. CPUs pay for each key that a query may not
    see: 2 s (3.4 to 2.2 s of processor time for 12 s of audio, ``benchmarks/results.md``).
    """
    if mx.default_device().type == mx.cpu:
        return 25
    fitting = [n for n in GROUP_SIZES if n <= GPU_POSITIONS // rows]
    return max([GROUP_SIZES[1], *fitting])


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


class FileRows(Generic[K]):
    """The rows of one run.

    Args:
        model: The network.
        tokenizer: Its tokenizer.
        rows: Most rows.
        delay_ms: Delay of all rows; ``None`` takes the model's own.
        options: How all rows decode.

    Raises:
        ValueError: If ``rows`` is not 1 to 64.
    """

    def __init__(
        self,
        model: VoxtralRealtime,
        tokenizer: Tokenizer,
        rows: int,
        delay_ms: int | None,
        options: StreamOptions,
    ):
        if not 1 <= rows <= MAX_FILES:
            raise ValueError(f"recordings at a time must be 1 to {MAX_FILES}, got {rows!r}")
        ids = SpecialIds(tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id)
        self._model, self._tokenizer = model, tokenizer
        self._pool = Pool(model, ids, rows, file_positions(rows), MAX_STEP, options.kv)
        self._n_rows = rows
        self._delay_ms = delay_ms
        self._options = options
        self._rows: list[_Row[K]] = []

    def work(
        self, sources: Iterable[tuple[K, Any]], sample_rate: int | None = None
    ) -> Iterator[FileResult[K]]:
        """Work until there are no more recordings and no more rows.

        Args:
            sources: Keys and recordings (:func:`voxmlx.audio.decode.open_audio`).
            sample_rate: Rate of those that are arrays.

        Yields:
            Results in the order in which they end.
        """
        files, more = iter(sources), True
        try:
            while more or self._rows:
                while more and len(self._rows) < self._n_rows:
                    entry = next(files, None)
                    if entry is None:
                        more = False
                    else:
                        yield from self._open(*entry, sample_rate)
                yield from self._tick()
        finally:
            for row in self._rows:
                row.close()

    def _open(self, key: K, source: Any, sample_rate: int | None) -> Iterator[FileResult[K]]:
        started = time.perf_counter()
        try:
            reader = open_audio(source, sample_rate)
        except AudioError as error:
            yield FileResult(key, None, error, time.perf_counter() - started)
            return
        backend = PooledBackend(self._pool)
        try:
            session = StreamingSession(
                self._model,
                self._tokenizer,
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
        worked = True
        while worked:  # sessions that restart after an EOS bring more work
            for row in self._rows:
                row.session.step()
            worked = False
            while self._pool.decode():
                worked = True
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
