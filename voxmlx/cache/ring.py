"""The ring cache: keys and values of a sliding window, written in place.

Position ``p`` lives in slot ``p % capacity``. A step of ``T`` positions first writes its keys, then
attends; the mask hides what a query may not see, so the order of slots never matters. With
``capacity >= window + T`` a step never overwrites a key that one of its own queries needs, and the
last step can be taken back by moving the offset alone: slots of rejected positions then look like
positions one lap older, which lie outside every later query's window.

Positions do not grow for ever: before the angles of rotary embeddings lose precision, a row is
moved back by whole laps and its keys are rotated back by as much, which leaves every distance, and
so every score, as it was.

Letters: B rows, L layers, H key-value heads, T new positions, C capacity, K head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import mlx.core as mx

from voxmlx.cache.store import KVStore, RingIndex, RowSlots

FIRST_CAPACITY = 256
"""Slots a new cache starts with; it doubles until it holds the window (few, fixed shapes)."""

READ = 256
"""Steps read a multiple of this many slots, or all: few shapes, few slots in vain."""

REANCHOR_AT = 16384
"""Position at which a row is moved back. The rounding of float32 angles puts an error on the scores
of normal 128-wide keys that grows with the position: rms 1e-3 here, 9e-3 at 131072, where the
reference ends; storing keys in bfloat16 costs 5e-2 anywhere (``benchmarks/rope_error.py``)."""


@dataclass(frozen=True)
class RingPlace:
    """What fixes the shapes of one step; a compiled step serves all steps of one place.

    Attributes:
        n_new: Positions written.
        capacity: Slots of the ring.
        n_read: Slots read, the first ones.
        window: Keys a query may see.
        contiguous: Whether all rows write the same, unbroken run of slots.
        in_place: Whether rings are changed in place, so that neither the slots read nor those
            written fix a shape.
    """

    n_new: int
    capacity: int
    n_read: int
    window: int
    contiguous: bool
    in_place: bool = False


def ring_index(offset: mx.array, place: RingPlace) -> RingIndex:
    """Slots and mask of a step that starts at ``offset``, ``(B,)``."""
    C, n_new = place.capacity, place.n_new
    positions = offset[:, None] + mx.arange(n_new, dtype=mx.int32)
    last = positions[:, -1:]
    # The position that each slot holds after the write: the newest one that maps to it.
    held = last - (last - mx.arange(place.n_read, dtype=mx.int32)) % C
    held = held[:, None, :]
    query = positions[:, :, None]
    mask = (held >= 0) & (held <= query) & (held > query - place.window)
    slots = positions % C
    return RingIndex(
        offset,
        slots,
        slots[0, 0],
        mask[:, None],
        place.contiguous,
        in_place=place.in_place,
        window=place.window,
    )


class RingKVCache:
    """Keys and values of all layers of one network, for one or more rows.

    Args:
        store: Holds the slots; emptied here.
        window: Keys a query may see, its own included.
        max_step: Most positions written by one step.
        batch_size: Rows.
        rope_theta: Base of the keys' rotary angles (neighbouring channels are pairs).
        reanchor_at: Position at which a row is moved back; at least two laps.
    """

    def __init__(
        self,
        store: KVStore,
        window: int,
        max_step: int,
        batch_size: int = 1,
        rope_theta: float = 1e6,
        reanchor_at: int = REANCHOR_AT,
    ):
        self.store = store
        self.window = window
        self.max_step = max_step
        self.full_capacity = window + max_step
        self.rope_theta = rope_theta
        self.reanchor_at = max(reanchor_at, 2 * self.full_capacity)
        self.offsets = [0] * batch_size
        self.capacity = min(FIRST_CAPACITY, self.full_capacity)
        store.allocate(batch_size, self.capacity)

    @property
    def nbytes(self) -> int:
        """Bytes held for keys and values."""
        return self.store.nbytes

    def prepare(self, n_new: int) -> RingIndex:
        """Make room for ``n_new`` positions in every row and say where they go.

        Raises:
            ValueError: If ``n_new`` is over ``max_step``.
        """
        place = replace(self.place(n_new), in_place=self.store.writes_by_host)
        return ring_index(mx.array(self.offsets, dtype=mx.int32), place)

    def place(self, n_new: int) -> RingPlace:
        """Make room for ``n_new`` positions in every row and say what the step looks like.

        Raises:
            ValueError: If ``n_new`` is over ``max_step``.
        """
        if n_new > self.max_step:
            raise ValueError(f"a step takes at most {self.max_step} positions, got {n_new}")
        if max(self.offsets) + n_new > self.reanchor_at:
            self.reanchor()
        end = max(self.offsets) + n_new
        self._grow(end)
        C = self.capacity
        n_read = C if end > C else min(-(-end // READ) * READ, C)
        contiguous = len(set(self.offsets)) == 1 and self.offsets[0] % C + n_new <= C
        return RingPlace(n_new, C, n_read, self.window, contiguous)

    def place_in_place(self, n_new: int) -> RingPlace:
        """The same as :meth:`place` for rings that are changed in place, with fewer shapes."""
        place = self.place(n_new)
        return replace(place, n_read=place.capacity, contiguous=False, in_place=True)

    def attend(
        self,
        layer: int,
        queries: mx.array,
        keys: mx.array,
        values: mx.array,
        index: RingIndex,
        scale: float,
    ) -> mx.array:
        """Write one layer's new keys and values, then attend over the window.

        Args:
            layer: Index of the layer.
            queries: ``(B, Hq, T, K)``, ``Hq`` a multiple of H, rotated.
            keys: ``(B, H, T, K)``, rotated.
            values: ``(B, H, T, K)``.
            index: What :meth:`prepare` returned for this step.
            scale: Factor on the scores.

        Returns:
            ``(B, Hq, T, K)``.
        """
        return self.store.attend(layer, queries, keys, values, index, scale)

    def attend_joined(
        self, layer: int, qkv: mx.array, index: RingIndex, n_heads: int, rope_theta: float
    ) -> mx.array:
        """See :meth:`voxmlx.cache.store.KVStore.attend_joined`."""
        return self.store.attend_joined(layer, qkv, index, n_heads, rope_theta)

    def reserve(self, n: int) -> None:
        """Make room for the first ``n`` positions at once, as far as the cache goes."""
        self._grow(n)

    def advance(self, n: int | Sequence[int]) -> None:
        """Count the last written positions that stay: ``n`` in every row, or a number a row.

        Positions written and not counted are overwritten by the next step.
        """
        counts = [n] * len(self.offsets) if isinstance(n, int) else n
        self.offsets = [a + b for a, b in zip(self.offsets, counts, strict=True)]

    def rewind(self, n: int | Sequence[int]) -> None:
        """Take the newest positions back, in all rows or row by row; at most the last step's."""
        self.advance(-n if isinstance(n, int) else [-count for count in n])

    def clear_row(self, row: int) -> None:
        """Forget one row; its slots are hidden until they are written again."""
        self.offsets[row] = 0

    def row_slots(self, row: int) -> RowSlots:
        """A copy of what a row holds, which must not have come round to its first slot."""
        return self.store.row_slots(row, self.offsets[row])

    def begin_row(self, row: int, slots: RowSlots, n: int) -> None:
        """Let a row go on behind ``n`` positions that another row, or another cache, held."""
        self.reserve(n)
        self.store.put_row_slots(row, slots)
        self.offsets[row] = n

    def take_rows(self, rows: Sequence[int | None]) -> None:
        """Keep and order rows: the new row ``i`` is the old row ``rows[i]``, ``None`` an empty one.

        Buffers are copied once; use it when the number of rows changes, not in a step.
        """
        self.offsets = [0 if row is None else self.offsets[row] for row in rows]
        self.store.take_rows([0 if row is None else row for row in rows])

    def reanchor(self) -> None:
        """Move every row back by as many whole laps as leave it one full lap."""
        laps = [max(0, offset // self.capacity - 1) for offset in self.offsets]
        if self.capacity < self.full_capacity or not any(laps):
            return
        shift = mx.array([-n * self.capacity for n in laps], dtype=mx.int32)
        for layer in range(self.store.n_layers):
            self.store.rotate_keys(layer, shift, self.rope_theta)
            mx.eval(self.store.buffers)  # layer by layer, to hold one copy
        self.offsets = [o - n * self.capacity for o, n in zip(self.offsets, laps, strict=True)]

    def _next_capacity(self, n: int) -> int:
        """Slots to hold ``n`` positions: doubled until they do; complete once they hold a window.

        So the largest copy is one from half a ring, not from nearly a whole one.
        """
        capacity = self.capacity
        while capacity < min(n, self.full_capacity):
            capacity = 2 * capacity if 2 * capacity < self.window else self.full_capacity
        return capacity

    def _grow(self, n: int) -> None:
        """Give position ``n - 1`` a slot, unless the ring is complete."""
        capacity = self._next_capacity(n)
        if capacity <= self.capacity:
            return
        self.store.grow(capacity - self.capacity)
        self.capacity = capacity
