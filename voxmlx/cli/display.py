"""What a person sees while recordings are transcribed.

In a pipe, text leaves as soon as it is settled and nothing else is shown. On a terminal, a bar
shows the progress; where the text goes to the same terminal, the sentence in progress stands above
the bar and finished ones stay.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from voxmlx.types import Event, SegmentEnd, TextDelta

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from rich.progress import Progress

_REFRESH_HZ = 8


class Session(Protocol):
    """What progress needs to know."""

    @property
    def duration_s(self) -> float:
        """Audio taken so far."""


class Display:
    """Shows the events of one recording; a context manager around their loop.

    Args:
        name: What to call the recording.
        session: Tells how far the work is.
        duration_s: Length of the recording, if known.
        show_text: Whether the text goes to standard output.
    """

    def __init__(self, name: str, session: Session, duration_s: float | None, show_text: bool):
        self._session = session
        self._show_text = show_text
        self._draft = ""
        self._shown = False
        self._started = time.monotonic()
        self._live: Live | None = None
        self._in_place = show_text and sys.stdout.isatty() and sys.stderr.isatty()
        if sys.stderr.isatty():
            self._make_bar(name, duration_s)

    def __enter__(self) -> Display:
        """Start to show progress."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Clear the progress and finish the line of text."""
        if self._live is not None:
            self._live.stop()
        if self._in_place:
            self._print_line(self._draft)
        elif self._show_text and (self._shown or kind is None):
            sys.stdout.write("\n")
            sys.stdout.flush()

    def show(self, event: Event) -> None:
        """Show new text."""
        if not self._show_text:
            return
        if self._in_place:
            if isinstance(event, TextDelta):
                self._draft += event.text
            elif isinstance(event, SegmentEnd):
                line, self._draft = split_after(self._draft, event.segment.text)
                self._print_line(line)
        elif isinstance(event, TextDelta):
            sys.stdout.write(event.text)
            sys.stdout.flush()
            self._shown = True

    def _make_bar(self, name: str, duration_s: float | None) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(file=sys.stdout if self._in_place else sys.stderr)
        bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[speed]:.1f}x"),
            TimeRemainingColumn(compact=True),
            console=self._console,
            auto_refresh=False,
        )
        self._task = bar.add_task(name, total=duration_s, speed=0.0)
        self._live = Live(
            console=self._console,
            get_renderable=lambda: self._render(bar),
            refresh_per_second=_REFRESH_HZ,
            transient=True,
            redirect_stdout=False,
        )

    def _render(self, bar: Progress) -> RenderableType:
        """The draft and the bar; the refreshing thread calls it."""
        from rich.console import Group
        from rich.text import Text

        done_s = self._session.duration_s
        speed = done_s / max(time.monotonic() - self._started, 1e-3)
        bar.update(self._task, completed=done_s, speed=speed)
        draft = self._draft.strip()
        return Group(Text(draft, style="dim"), bar) if draft else bar

    def _print_line(self, line: str) -> None:
        if line.strip():
            self._console.print(line.strip(), markup=False, highlight=False, soft_wrap=True)


def split_after(text: str, start: str) -> tuple[str, str]:
    """Cut ``text`` behind the characters of ``start``, whatever the whitespace between them."""
    n_left = sum(not char.isspace() for char in start)
    for i, char in enumerate(text):
        if n_left == 0:
            return text[:i], text[i:]
        n_left -= not char.isspace()
    return text, ""
