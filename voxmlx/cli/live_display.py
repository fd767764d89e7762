"""What a person sees during a live transcription: text, and level, delay, lag and speed below."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from voxmlx.audio.live import Float32Array
from voxmlx.cli.text_display import TextDisplay

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from voxmlx.audio.live import LiveSource
    from voxmlx.streaming.session import StreamingSession

_REFRESH_HZ = 12
_METER_CELLS = 10
_METER_FLOOR_DB = -60.0
_FALL_DB = 3.0
"""How much the level shown falls with each piece of audio: it follows peaks, not moments."""


class LiveDisplay(TextDisplay):
    """Shows the events of a live session.

    Args:
        session: Tells delay, lag and speed.
        source: Tells what was lost.
        show_text: Whether the text goes to standard output.
    """

    def __init__(self, session: StreamingSession, source: LiveSource, show_text: bool):
        self._session = session
        self._source = source
        self._level_db = _METER_FLOOR_DB
        self.state = "listening"
        super().__init__(show_text, _REFRESH_HZ)

    def below(self, console: Console) -> RenderableType:
        """The status."""
        from rich.text import Text

        return Text(self.status(), style="dim", no_wrap=True, overflow="crop")

    def hear(self, samples: Float32Array) -> None:
        """Take the sound for the level."""
        peak_db = level_db(samples)
        self._level_db = max(peak_db, self._level_db - _FALL_DB, _METER_FLOOR_DB)

    def status(self) -> str:
        """The line below the text."""
        session, timings = self._session, self._session.timings
        minutes, seconds = divmod(int(session.duration_s), 60)
        rtf = (timings.encode_s + timings.decode_s) / max(session.duration_s, 1e-3)
        parts = [
            f"{minutes:02d}:{seconds:02d} {self.state}",
            meter(self._level_db),
            f"delay {session.delay_ms} ms",
            f"lag {session.lag_s:.1f} s",
            f"RTF {rtf:.2f}",
        ]
        if self._source.n_dropped:
            parts.append(f"LOST {self._source.n_dropped / self._source.sample_rate:.1f} s")
        return "  ".join(parts)


def level_db(samples: Float32Array) -> float:
    """Peak level in dB of full scale; the meter's floor for silence."""
    peak = float(np.abs(samples).max()) if len(samples) else 0.0
    return max(_METER_FLOOR_DB, 20 * float(np.log10(max(peak, 1e-9))))


def meter(level: float) -> str:
    """A level in dB as a bar of fixed width."""
    n = round((1 - level / _METER_FLOOR_DB) * _METER_CELLS)
    n = min(max(n, 0), _METER_CELLS)
    return "█" * n + "░" * (_METER_CELLS - n)
