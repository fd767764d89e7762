"""Text on a terminal or in a pipe as it settles; below it, whatever a command wants to show.

In a pipe, text leaves as soon as it is settled. Where the text goes to the terminal that shows the
rest too, finished sentences stay and the open one grows in place.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING

from voxmlx.types import Event, SegmentEnd, TextDelta

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from typing_extensions import Self


class TextDisplay(ABC):
    """Shows the events of a session; a context manager around their loop.

    Args:
        show_text: Whether the text goes to standard output.
        refresh_hz: How often :meth:`below` is drawn.
    """

    def __init__(self, show_text: bool, refresh_hz: int):
        self._show_text = show_text
        self._refresh_hz = refresh_hz
        self._draft = ""
        self._shown = False
        self._live: Live | None = None
        self._in_place = show_text and sys.stdout.isatty() and sys.stderr.isatty()
        if sys.stderr.isatty():
            self._live = self._make_live()

    @abstractmethod
    def below(self, console: Console) -> RenderableType:
        """What stands below the text; the refreshing thread calls it."""

    def __enter__(self) -> Self:
        """Start to show."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Clear what stands below and finish the line of text."""
        if self._live is not None:
            self._live.stop()
        if self._in_place:
            self._print_line(self._draft)
        elif self._ends_line(kind is None):
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

    def _ends_line(self, done: bool) -> bool:
        """Whether a line of a pipe is ended; ``done`` says that no error came."""
        return self._shown

    def _make_live(self) -> Live:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(file=sys.stdout if self._in_place else sys.stderr)
        return Live(
            console=self._console,
            get_renderable=self._render,
            refresh_per_second=self._refresh_hz,
            transient=True,
            redirect_stdout=False,
        )

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        below, draft = self.below(self._console), self._draft.strip()
        return Group(Text(draft, style="dim"), below) if draft else below

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
