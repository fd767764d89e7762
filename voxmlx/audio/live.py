"""Sources of audio that come as time passes: what they share, and files played at their own speed.

A source is read by one thread; a bounded queue stands between it and whoever records. Knows nothing
of devices, models or text.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]


class LiveSource(Protocol):
    """Audio that arrives by and by.

    Attributes:
        sample_rate: In Hz.
        can_wait: Whether it loses nothing if nobody reads for a while.
    """

    sample_rate: int
    can_wait: bool

    @property
    def n_dropped(self) -> int:
        """Samples lost so far."""

    def read(self, timeout_s: float) -> Float32Array | None:
        """Take all samples that have arrived, ``(n,)`` float32.

        Args:
            timeout_s: How long to wait where there are none; then the array is empty.

        Returns:
            The samples, or ``None`` once the source has ended and all were taken.

        Raises:
            AudioError: If the source failed.
        """

    def stop(self) -> None:
        """Take in nothing more; what has arrived can still be read."""


class SampleQueue:
    """Samples on their way from a recording thread to a reading one, in bounded memory.

    Args:
        capacity: Most samples it holds.
    """

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.n_dropped = 0
        self._chunks: deque[Float32Array] = deque()
        self._n = 0
        self._ended = False
        self._error: Exception | None = None
        self._changed = threading.Condition()

    def put(self, samples: Float32Array, wait: bool = False) -> None:
        """Add samples.

        Args:
            samples: ``(n,)``; kept, not copied.
            wait: Whether to wait for room; otherwise samples that find none are counted and lost.
        """
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._n < self.capacity or self._ended)
            if self._ended or not len(samples):
                return
            if not wait and self._n + len(samples) > self.capacity:
                self.n_dropped += len(samples)
                return
            self._chunks.append(samples)
            self._n += len(samples)
            self._changed.notify_all()

    def end(self, error: Exception | None = None) -> None:
        """Take nothing more; ``error`` is raised by the reader once the queue is empty."""
        with self._changed:
            self._ended = True
            self._error = self._error if error is None else error
            self._changed.notify_all()

    def take(self, timeout_s: float) -> Float32Array | None:
        """Take everything; see :meth:`LiveSource.read`."""
        with self._changed:
            self._changed.wait_for(lambda: self._n or self._ended, timeout_s)
            if self._n:
                samples = np.concatenate(self._chunks)
                self._chunks.clear()
                self._n = 0
                self._changed.notify_all()
                return samples
            if not self._ended:
                return np.zeros(0, np.float32)
            error, self._error = self._error, None
        if error is not None:
            raise error
        return None


class PacedSource:
    """A recording that arrives at its own speed, as if somebody spoke it now.

    Args:
        chunks: ``(n,)`` float32 arrays, one after another.
        sample_rate: Their rate in Hz.
        chunk_s: Length of the pieces that arrive at a time.
    """

    can_wait = False
    n_dropped = 0

    def __init__(self, chunks: Iterable[Float32Array], sample_rate: int, chunk_s: float = 0.08):
        self.sample_rate = sample_rate
        self.started_s: float | None = None
        self._chunks: Iterator[Float32Array] = iter(chunks)
        self._n_piece = max(1, round(chunk_s * sample_rate))
        self._held = np.zeros(0, np.float32)
        self._n_given = 0
        self._ended = False

    def read(self, timeout_s: float) -> Float32Array | None:
        """Take the samples that were spoken by now; see :meth:`LiveSource.read`."""
        if self.started_s is None:
            self.started_s = time.monotonic()
        if self._ended and not len(self._held):
            return None
        next_s = self.started_s + (self._n_given + self._n_piece) / self.sample_rate
        wait_s = next_s - time.monotonic()
        if wait_s > 0:
            time.sleep(min(wait_s, timeout_s))
        elapsed = int((time.monotonic() - self.started_s) * self.sample_rate)
        n_due = elapsed // self._n_piece * self._n_piece - self._n_given
        self._fill(n_due)
        samples, self._held = self._held[: max(0, n_due)], self._held[max(0, n_due) :]
        self._n_given += len(samples)
        return samples

    def stop(self) -> None:
        """End the recording here."""
        self._ended = True
        self._held = self._held[:0]

    def _fill(self, n: int) -> None:
        while len(self._held) < n and not self._ended:
            chunk = next(self._chunks, None)
            if chunk is None:
                self._ended = True
            else:
                self._held = np.concatenate([self._held, chunk])
