"""How long after the end of a word its text came. It knows events; clocks are the caller's."""

from __future__ import annotations

from array import array
from collections import deque
from dataclasses import dataclass

import numpy as np

from voxmlx.types import Event, TextDelta, WordEnd


@dataclass(frozen=True)
class LatencySummary:
    """Distribution over words, in seconds."""

    n_words: int
    mean_s: float
    p50_s: float
    p90_s: float
    p99_s: float
    max_s: float


class LatencyMeter:
    """Takes the events of a session and notes when the text of each word was complete."""

    def __init__(self) -> None:
        self._values = array("f")
        self._shown: deque[tuple[int, float]] = deque()  # characters so far, and when they came
        self._n_shown = 0
        self._n_words = 0  # characters of all words so far

    def add(self, event: Event, now_s: float) -> None:
        """Take an event.

        Args:
            event: What a step returned.
            now_s: Seconds since the audio began.
        """
        if isinstance(event, TextDelta):
            self._n_shown += _n_characters(event.text)
            self._shown.append((self._n_shown, now_s))
        elif isinstance(event, WordEnd):
            self._n_words += _n_characters(event.word.text)
            while len(self._shown) > 1 and self._shown[0][0] < self._n_words:
                self._shown.popleft()
            self._values.append(self._shown[0][1] - event.word.end_s)

    @property
    def latencies_s(self) -> list[float]:
        """Latency of each word so far."""
        return list(self._values)

    def summary(self) -> LatencySummary | None:
        """The distribution so far; ``None`` without words."""
        if not self._values:
            return None
        values = np.array(self._values)
        p50, p90, p99, largest = map(float, np.percentile(values, [50, 90, 99, 100]))
        return LatencySummary(len(values), float(values.mean()), p50, p90, p99, largest)


def _n_characters(text: str) -> int:
    return sum(not char.isspace() for char in text)
