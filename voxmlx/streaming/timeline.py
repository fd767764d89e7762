"""Where the audio stands in a stream that holds silence of its own. It knows seconds only."""

from __future__ import annotations

from bisect import bisect_left


class Timeline:
    """Maps times of a stream to times of its audio, which lacks the inserted silence."""

    def __init__(self) -> None:
        self._starts: list[float] = []
        self._ends: list[float] = []
        self._totals = [0.0]

    def insert(self, start_s: float, length_s: float) -> None:
        """Note silence at a time of the stream, later than all noted before."""
        self._starts.append(start_s)
        self._ends.append(start_s + length_s)
        self._totals.append(self._totals[-1] + length_s)

    def audio_s(self, stream_s: float) -> float:
        """Time in the audio, in whole microseconds; within inserted silence, that of the cut."""
        n = bisect_left(self._starts, stream_s)
        if n == 0:
            return stream_s
        return round(max(stream_s, self._ends[n - 1]) - self._totals[n], 6)
