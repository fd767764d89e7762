"""Which row of a batch sits where: rows join and leave, and the batch takes a few sizes only."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence

ROW_SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Numbers of places that a batch takes."""

MAX_ROWS = ROW_SIZES[-1]


def round_up(n: int, sizes: Sequence[int]) -> int:
    """The smallest of the ascending ``sizes`` that holds ``n``.

    Raises:
        ValueError: If none does.
    """
    for size in sizes:
        if n <= size:
            return size
    raise ValueError(f"at most {sizes[-1]} fit, got {n}")


class Slots:
    """Places of a batch, by row. A row is a number that is never used again.

    Args:
        max_rows: Most rows at a time, at most MAX_ROWS.
        resize: A method of the owner, called with the old places to keep, in their new order;
            ``None`` is an empty place. It is held weakly: an owner goes, with its buffers, as soon
            as nobody else holds it.
        reserve: Whether there are places for all rows from the start, for ever.

    Raises:
        ValueError: If ``max_rows`` is out of range.
    """

    def __init__(
        self, max_rows: int, resize: Callable[[list[int | None]], None], reserve: bool = False
    ):
        if not 1 <= max_rows <= MAX_ROWS:
            raise ValueError(f"max_rows must be 1 to {MAX_ROWS}, got {max_rows!r}")
        self.max_rows = max_rows
        self._resize_buffers = weakref.WeakMethod(resize)
        self._reserve = reserve
        self._rows: list[int | None] = [None] * (max_rows if reserve else 1)
        self._slot: dict[int, int] = {}
        self._next = 0

    @property
    def size(self) -> int:
        """Places, taken or not."""
        return len(self._rows)

    def __len__(self) -> int:
        """Rows."""
        return len(self._slot)

    def __getitem__(self, row: int) -> int:
        """The place of a row."""
        return self._slot[row]

    def __iter__(self) -> Iterator[int]:
        """Rows, in the order in which they joined."""
        return iter(self._slot)

    def join(self) -> int:
        """Give a new row a place.

        Raises:
            ValueError: If ``max_rows`` rows are there already.
        """
        if len(self) >= self.max_rows:
            raise ValueError(f"all {self.max_rows} rows are taken; leave() one first")
        if None not in self._rows:
            n = self.size
            self._resize([*range(n), *[None] * (round_up(n + 1, ROW_SIZES) - n)])
        row, self._next = self._next, self._next + 1
        self._slot[row] = self._rows.index(None)
        self._rows[self._slot[row]] = row
        return row

    def leave(self, row: int) -> None:
        """Free a row's place; half-empty batches shrink."""
        self._rows[self._slot.pop(row)] = None
        size = round_up(max(1, len(self)), ROW_SIZES)
        if 2 * size <= self.size and not self._reserve:
            used = [slot for slot, key in enumerate(self._rows) if key is not None]
            self._resize([*used, *[None] * (size - len(used))])

    def _resize(self, slots: list[int | None]) -> None:
        resize_buffers = self._resize_buffers()
        if resize_buffers is not None:
            resize_buffers(slots)
        self._rows = [None if slot is None else self._rows[slot] for slot in slots]
        self._slot.update({row: i for i, row in enumerate(self._rows) if row is not None})
