from __future__ import annotations

from collections import deque

import numpy as np
import pytest

from voxmlx.evaluate.live import run_live
from voxmlx.types import TextDelta, Word, WordEnd


class FakeSession:
    """Writes a word of 80 ms for every chunk, one chunk late; each step takes ``cost_s``."""

    def __init__(self, cost_s: float):
        self.cost_s = cost_s
        self.time_s = 0.0
        self.done = False
        self._queue: deque[int] = deque()
        self._n = 0
        self._closed = False

    @property
    def pending(self):
        return len(self._queue) > 1 or (self._closed and not self.done)

    def feed(self, samples, sample_rate=None):
        self._queue.append(self._n)
        self._n += 1

    def close(self):
        self._closed = True

    def step(self):
        self.time_s += self.cost_s
        i = self._queue.popleft()
        self.done = self._closed and not self._queue
        return [TextDelta("ab "), WordEnd(Word("ab", 0.08 * i, 0.08 * (i + 1)))]


def test_fast_machine_shows_the_delay_alone():
    session = FakeSession(cost_s=0.01)
    latencies = run_live(session, np.zeros(16000, np.float32), clock=lambda: session.time_s)
    assert len(latencies) == 13
    assert latencies[:10] == pytest.approx([0.09] * 10)


def test_slow_machine_falls_behind():
    session = FakeSession(cost_s=0.1)
    latencies = run_live(session, np.zeros(16000, np.float32), clock=lambda: session.time_s)
    assert np.diff(latencies[:11]) == pytest.approx(0.02)


def test_tail_is_heard_before_the_end():
    session = FakeSession(cost_s=0.0)
    latencies = run_live(
        session, np.zeros(1280, np.float32), tail_s=0.16, clock=lambda: session.time_s
    )
    assert latencies == pytest.approx([0.08, 0.08, 0.0])
