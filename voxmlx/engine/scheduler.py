"""Who may run, and who works in which tick. Plain numbers: no model, no audio, no threads.

A turn waits, runs, and leaves. Live turns never wait: one that comes when every place is taken is
turned away at once, because a microphone cannot be paused. Files wait in line. In a tick every
live turn with audio goes first; files share what is left of the tick, in turn.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from voxmlx.engine.request import EngineFullError, Kind
from voxmlx.generation.slots import MAX_ROWS

MIN_SLICE, MAX_SLICE = 2, 150
"""Positions (80 ms) that one file may encode in a tick: least beside live turns, most alone."""

LEAST_LIVE, LIVE_POSITIONS = 2, 8
"""Positions (80 ms) of one live turn that a pass takes at most, of the encoder or the decoder. All
rows of a pass are computed to the length of the longest, so the 30 to 60 with which a turn begins
and the 17 that settle its end are spread over some ticks, or they would hold up the others."""

PERIOD_TICKS, MAX_AGE_S = 1.5, 0.1
"""A tick that has caught up is followed by a rest, so that more turns have audio at the next one: a
tick costs what its rows cost, whether they have audio or not. Ticks begin so many of their own
lengths apart, or sooner where audio would be older than MAX_AGE_S at the end of the next one."""


@dataclass(frozen=True)
class Limits:
    """What the engine may take on.

    Attributes:
        max_live: Live turns at a time.
        max_files: Files that are worked on at a time.
        max_waiting: Files that wait for a place.
        memory_bytes: Memory for all running turns; ``None`` sets no limit.
        tick_s: How long a tick should last at most while live turns run: half a position, so
            that work on a file costs a live turn less than one.
        reserve: Whether keys and values of ``max_live`` turns with full windows are held from the
            start. Then nothing is copied or compiled as turns come, go and grow, but every tick is
            one for all of them.
    """

    max_live: int = 16
    max_files: int = 4
    max_waiting: int = 64
    memory_bytes: int | None = None
    tick_s: float = 0.04
    reserve: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("max_live", "max_files"):
            value = getattr(self, name)
            if not 0 <= value <= MAX_ROWS:
                raise ValueError(f"{name} must be 0 to {MAX_ROWS}, got {value!r}")
        if self.max_waiting < 0 or self.tick_s <= 0:
            raise ValueError("max_waiting must be at least 0 and tick_s more than 0")


def period_s(tick_s: float) -> float:
    """Time from the beginning of a tick of this length to the next one's, if that one can begin."""
    return min(PERIOD_TICKS * tick_s, MAX_AGE_S - tick_s)


class Scheduler:
    """Keeps the book of turns; a turn is a number that the caller gives.

    Args:
        limits: What may be taken on.
    """

    def __init__(self, limits: Limits):
        self.limits = limits
        self._reserved_bytes = 0
        self._running: dict[int, tuple[Kind, int]] = {}
        self._waiting: OrderedDict[int, int] = OrderedDict()
        self._slice = MIN_SLICE
        self._live_share = LIVE_POSITIONS
        self._last_file = -1

    @property
    def n_live(self) -> int:
        """Live turns that run."""
        return self._count(Kind.LIVE)

    @property
    def n_files(self) -> int:
        """Files that are worked on."""
        return self._count(Kind.FILE)

    @property
    def n_waiting(self) -> int:
        """Files in line."""
        return len(self._waiting)

    @property
    def used_bytes(self) -> int:
        """Memory promised to running turns, and reserved."""
        return self._reserved_bytes + sum(nbytes for _, nbytes in self._running.values())

    def reserve(self, nbytes: int) -> None:
        """Note memory that is held whatever runs; turns that use it then count nothing.

        Raises:
            EngineFullError: If it is more than may be used.
        """
        budget = self.limits.memory_bytes
        if budget is not None and nbytes > budget:
            raise EngineFullError(
                f"{self.limits.max_live} live turns need {nbytes} bytes, the server may use "
                f"{budget}; allow fewer turns or more memory"
            )
        self._reserved_bytes = nbytes

    def submit(self, turn: int, kind: Kind, nbytes: int) -> bool:
        """Take on a turn that may need ``nbytes`` of memory.

        Returns:
            Whether it runs at once; otherwise it waits until :meth:`leave` names it.

        Raises:
            EngineFullError: If there is no place for it, now or ever.
        """
        budget = self.limits.memory_bytes
        if budget is not None and nbytes > budget:
            raise EngineFullError(f"a turn needs {nbytes} bytes, the server may use {budget}")
        if self._fits(kind, nbytes) and not (kind is Kind.FILE and self._waiting):
            self._running[turn] = (kind, nbytes)
            return True
        if kind is Kind.LIVE:
            raise EngineFullError("every place for live audio is taken; try again later")
        if len(self._waiting) >= self.limits.max_waiting:
            raise EngineFullError("too many files are waiting; try again later")
        self._waiting[turn] = nbytes
        return False

    def leave(self, turn: int) -> list[int]:
        """Forget a turn, running or waiting.

        Returns:
            Turns that may run now.
        """
        self._waiting.pop(turn, None)
        self._running.pop(turn, None)
        admitted = []
        while self._waiting:
            first, nbytes = next(iter(self._waiting.items()))
            if not self._fits(Kind.FILE, nbytes):
                break
            del self._waiting[first]
            self._running[first] = (Kind.FILE, nbytes)
            admitted.append(first)
        return admitted

    def is_running(self, turn: int) -> bool:
        """Whether a turn has its place."""
        return turn in self._running

    def plan_files(self, ready: Iterable[int]) -> list[tuple[int, int]]:
        """Shares of the files in the next tick.

        Args:
            ready: Files that have work.

        Returns:
            Files with the positions each may encode. Beside live turns it is one file with a
            slice that keeps the tick short, the next one each time; otherwise all in full.
        """
        order = sorted(turn for turn in ready if self._running[turn][0] is Kind.FILE)
        if not order:
            return []
        if not self.n_live:
            return [(turn, MAX_SLICE) for turn in order]
        later = [turn for turn in order if turn > self._last_file]
        self._last_file = (later or order)[0]
        return [(self._last_file, self._slice)]

    def plan_live(self, backlogs: Iterable[int]) -> int:
        """Positions that a pass of the next tick takes of a live turn at most.

        Args:
            backlogs: Positions that wait, of the live turns with work.
        """
        # What half of all turns need is no waste; the others' rows are computed in vain.
        waiting = sorted([*backlogs, *[0] * self.n_live], reverse=True)[: self.n_live]
        return min(LIVE_POSITIONS, max(self._live_share, waiting[self.n_live // 2]))

    def goes_on(self, seconds: float, n_behind: int) -> bool:
        """Whether turns that are behind get another pass in a tick that has lasted so long."""
        return seconds < self.limits.tick_s or 2 * n_behind >= self.n_live

    def ticked_live(self, seconds: float) -> None:
        """Learn from what live turns took of a tick."""
        if seconds > self.limits.tick_s:
            self._live_share = max(LEAST_LIVE, self._live_share // 2)
        elif seconds < self.limits.tick_s / 2:
            self._live_share = min(LIVE_POSITIONS, self._live_share * 2)

    def ticked(self, seconds: float) -> None:
        """Learn from the length of a tick in which live turns and a file both worked."""
        if seconds > self.limits.tick_s:
            self._slice = max(MIN_SLICE, self._slice // 2)
        elif seconds < self.limits.tick_s / 2:
            self._slice = min(MAX_SLICE, self._slice + 2)

    def _count(self, kind: Kind) -> int:
        return sum(running is kind for running, _ in self._running.values())

    def _fits(self, kind: Kind, nbytes: int) -> bool:
        places = self.limits.max_live if kind is Kind.LIVE else self.limits.max_files
        budget = self.limits.memory_bytes
        room = budget is None or self.used_bytes + nbytes <= budget
        return self._count(kind) < places and room
