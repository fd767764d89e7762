"""How long after the end of a word its text came. Plain numbers."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np


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
    """Collects the latencies of words."""

    def __init__(self) -> None:
        self._values = array("f")

    def add(self, word_end_s: float, emitted_s: float) -> None:
        """Note a word.

        Args:
            word_end_s: Its end in the audio.
            emitted_s: When its text came, on the same clock: seconds since the audio began.
        """
        self._values.append(emitted_s - word_end_s)

    def summary(self) -> LatencySummary | None:
        """The distribution so far; ``None`` without words."""
        if not self._values:
            return None
        values = np.array(self._values)
        p50, p90, p99, largest = map(float, np.percentile(values, [50, 90, 99, 100]))
        return LatencySummary(len(values), float(values.mean()), p50, p90, p99, largest)
