"""What a person sees during a live transcription.

On a terminal, finished sentences stay, the open one grows in place, and a line below shows level,
delay, lag and speed. In a pipe, text leaves as soon as it is settled.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from voxmlx.audio.live import Float32Array
from voxmlx.cli.display import split_after
from voxmlx.types import Event, SegmentEnd, TextDelta

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from voxmlx.audio.live import LiveSource
    from voxmlx.streaming.session import StreamingSession

_REFRESH_HZ = 12
_METER_CELLS = 10
_METER_FLOOR_DB = -60.0
_FALL_DB = 3.0
"""How much the level shown falls with each piece of audio: it follows peaks, not moments."""


class LiveDisplay:
    """Shows the events of a session; a context manager around its loop.

    Args:
        session: Tells delay, lag and speed.
        source: Tells what was lost.
        show_text: Whether the text goes to standard output.
    """

    def __init__(self, session: StreamingSession, source: LiveSource, show_text: bool):
        self._session = session
        self._source = source
        self._show_text = show_text
        self._draft = ""
        self._shown = False
        self._level_db = _METER_FLOOR_DB
        self._live: Live | None = None
        self.state = "listening"
        self._in_place = show_text and sys.stdout.isatty() and sys.stderr.isatty()
        if sys.stderr.isatty():
            self._make_live()

    def __enter__(self) -> LiveDisplay:
        """Start to show the status."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Clear the status and finish the line of text."""
        if self._live is not None:
            self._live.stop()
        if self._in_place:
            self._print_line(self._draft)
        elif self._shown:
            sys.stdout.write("\n")
            sys.stdout.flush()

    def hear(self, samples: Float32Array) -> None:
        """Take the sound for the level."""
        peak_db = level_db(samples)
        self._level_db = max(peak_db, self._level_db - _FALL_DB, _METER_FLOOR_DB)

    def show(self, event: Event) -> None:
        """Show new text."""
        if not self._show_text:
            return
        if isinstance(event, TextDelta):
            self._draft += event.text
            if not self._in_place:
                sys.stdout.write(event.text)
                sys.stdout.flush()
                self._shown = True
        elif isinstance(event, SegmentEnd):
            line, self._draft = split_after(self._draft, event.segment.text)
            if self._in_place:
                self._print_line(line)

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

    def _make_live(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(file=sys.stdout if self._in_place else sys.stderr)
        self._live = Live(
            console=self._console,
            get_renderable=self._render,
            refresh_per_second=_REFRESH_HZ,
            transient=True,
        )

    def _render(self) -> RenderableType:
        """The open sentence and the status; the refreshing thread calls it."""
        from rich.console import Group
        from rich.text import Text

        status = Text(self.status(), style="dim", no_wrap=True, overflow="crop")
        draft = self._draft.strip()
        return Group(Text(draft), status) if draft and self._in_place else status

    def _print_line(self, line: str) -> None:
        if line.strip():
            self._console.print(line.strip(), markup=False, highlight=False, soft_wrap=True)


def level_db(samples: Float32Array) -> float:
    """Peak level in dB of full scale; the meter's floor for silence."""
    peak = float(np.abs(samples).max()) if len(samples) else 0.0
    return max(_METER_FLOOR_DB, 20 * float(np.log10(max(peak, 1e-9))))


def meter(level: float) -> str:
    """A level in dB as a bar of fixed width."""
    n = round((1 - level / _METER_FLOOR_DB) * _METER_CELLS)
    n = min(max(n, 0), _METER_CELLS)
    return "█" * n + "░" * (_METER_CELLS - n)
