"""What a person sees while recordings are transcribed: their text, and a bar with the progress."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from voxmlx.cli.text_display import TextDisplay

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress, TaskID

_REFRESH_HZ = 8


class Session(Protocol):
    """What progress needs to know."""

    @property
    def duration_s(self) -> float:
        """Audio taken so far."""


class Display(TextDisplay):
    """Shows the events of one recording.

    Args:
        name: What to call the recording.
        session: Tells how far the work is.
        duration_s: Length of the recording, if known.
        show_text: Whether the text goes to standard output.
    """

    def __init__(self, name: str, session: Session, duration_s: float | None, show_text: bool):
        self._name = name
        self._session = session
        self._duration_s = duration_s
        self._started = time.monotonic()
        self._bar: tuple[Progress, TaskID] | None = None
        super().__init__(show_text, _REFRESH_HZ)

    def below(self, console: Console) -> RenderableType:
        """The bar."""
        if self._bar is None:
            self._bar = self._make_bar(console)
        bar, task = self._bar
        done_s = self._session.duration_s
        speed = done_s / max(time.monotonic() - self._started, 1e-3)
        bar.update(task, completed=done_s, speed=speed)
        return bar

    def _make_bar(self, console: Console) -> tuple[Progress, TaskID]:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[speed]:.1f}x"),
            TimeRemainingColumn(compact=True),
            console=console,
            auto_refresh=False,
        )
        return bar, bar.add_task(self._name, total=self._duration_s, speed=0.0)

    def _ends_line(self, done: bool) -> bool:
        return self._show_text and (self._shown or done)
