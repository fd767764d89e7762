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
from dataclasses import dataclass

import mlx.core as mx

FIRST_CAPACITY = 256
"""Slots a new cache starts with; it doubles until it holds the window (few, fixed shapes)."""

REANCHOR_AT = 16384
"""Position at which a row is moved back. The rounding of float32 angles puts an error on the scores
of normal 128-wide keys that grows with the position: rms 1e-3 here, 6e-3 at 131072, where the
reference ends; storing keys in bfloat16 costs 4e-2 anywhere (``benchmarks/rope_error.py``)."""


@dataclass(frozen=True)
class RingIndex:
    """Where one step writes and what it may see; shared by all layers of a step.

    Attributes:
        offset: Position of each row's first new entry, ``(B,)`` int32.
        slots: Slot of each new position, ``(B, T)`` int32.
        mask: True where a query may attend, ``(B, 1, T, C)``.
        contiguous: Whether all rows write the same, unbroken run of slots.
    """

    offset: mx.array
    slots: mx.array
    mask: mx.array
    contiguous: bool


def ring_index(
    offset: mx.array, n_new: int, capacity: int, window: int, contiguous: bool
) -> RingIndex:
    """Slots and mask of a step of ``n_new`` positions that starts at ``offset``, ``(B,)``."""
    positions = offset[:, None] + mx.arange(n_new, dtype=mx.int32)
    last = positions[:, -1:]
    # The position that each slot holds after the write: the newest one that maps to it.
    held = last - (last - mx.arange(capacity, dtype=mx.int32)) % capacity
    held = held[:, None, :]
    query = positions[:, :, None]
    mask = (held >= 0) & (held <= query) & (held > query - window)
    return RingIndex(offset, positions % capacity, mask[:, None], contiguous)


class RingKVCache:
    """Keys and values of all layers of one network, for one or more rows.

    Args:
        n_layers: Layers of the network.
        n_kv_heads: Key-value heads of a layer.
        head_dim: Width of a head.
        window: Keys a query may see, its own included.
        max_step: Most positions written by one step.
        dtype: Type of the stored arrays.
        batch_size: Rows.
        rope_theta: Base of the keys' rotary angles (neighbouring channels are pairs).
        reanchor_at: Position at which a row is moved back; at least two laps.
    """

    def __init__(
        self,
        n_layers: int,
        n_kv_heads: int,
        head_dim: int,
        window: int,
        max_step: int,
        dtype: mx.Dtype,
        batch_size: int = 1,
        rope_theta: float = 1e6,
        reanchor_at: int = REANCHOR_AT,
    ):
        self.window = window
        self.max_step = max_step
        self.full_capacity = window + max_step
        self.rope_theta = rope_theta
        self.reanchor_at = max(reanchor_at, 2 * self.full_capacity)
        self.offsets = [0] * batch_size
        self._shape = (n_kv_heads, head_dim)
        self._dtype = dtype
        self.capacity = min(FIRST_CAPACITY, self.full_capacity)
        self.keys = [self._zeros(batch_size, self.capacity) for _ in range(n_layers)]
        self.values = [self._zeros(batch_size, self.capacity) for _ in range(n_layers)]

    @property
    def nbytes(self) -> int:
        """Bytes held by keys and values."""
        return sum(x.nbytes for x in self.keys) + sum(x.nbytes for x in self.values)

    def prepare(self, n_new: int) -> RingIndex:
        """Make room for ``n_new`` positions in every row and say where they go.

        Raises:
            ValueError: If ``n_new`` is over ``max_step``.
        """
        if n_new > self.max_step:
            raise ValueError(f"a step takes at most {self.max_step} positions, got {n_new}")
        if max(self.offsets) + n_new > self.reanchor_at:
            self.reanchor()
        self._grow(max(self.offsets) + n_new)
        start = self.offsets[0] % self.capacity
        contiguous = len(set(self.offsets)) == 1 and start + n_new <= self.capacity
        offset = mx.array(self.offsets, dtype=mx.int32)
        return ring_index(offset, n_new, self.capacity, self.window, contiguous)

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
        self.keys[layer] = write_slots(self.keys[layer], keys, index)
        self.values[layer] = write_slots(self.values[layer], values, index)
        return mx.fast.scaled_dot_product_attention(
            queries, self.keys[layer], self.values[layer], scale=scale, mask=index.mask
        )

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

    def take_rows(self, rows: Sequence[int | None]) -> None:
        """Keep and order rows: the new row ``i`` is the old row ``rows[i]``, ``None`` an empty one.

        Buffers are copied once; use it when the number of rows changes, not in a step.
        """
        self.offsets = [0 if row is None else self.offsets[row] for row in rows]
        index = mx.array([0 if row is None else row for row in rows], dtype=mx.int32)
        for buffers in (self.keys, self.values):
            for i, buffer in enumerate(buffers):
                buffers[i] = mx.take(buffer, index, axis=0)

    def reanchor(self) -> None:
        """Move every row back by as many whole laps as leave it one full lap."""
        laps = [max(0, offset // self.capacity - 1) for offset in self.offsets]
        if self.capacity < self.full_capacity or not any(laps):
            return
        shift = mx.array([-n * self.capacity for n in laps], dtype=mx.int32)
        for layer in range(len(self.keys)):
            self._rotate_keys(layer, shift)
        self.offsets = [o - n * self.capacity for o, n in zip(self.offsets, laps, strict=True)]

    def _rotate_keys(self, layer: int, shift: mx.array) -> None:
        """Turn one layer's keys by ``shift`` positions, ``(B,)``; evaluated, to hold one copy."""
        self.keys[layer] = rotate(self.keys[layer], shift, self.rope_theta)
        mx.eval(self.keys[layer])

    def _zeros(self, batch_size: int, n: int) -> mx.array:
        n_heads, head_dim = self._shape
        return mx.zeros((batch_size, n_heads, n, head_dim), self._dtype)

    def _next_capacity(self, n: int) -> int:
        """Slots to hold ``n`` positions: doubled until they do or the ring is complete."""
        capacity = self.capacity
        while capacity < min(n, self.full_capacity):
            capacity = min(2 * capacity, self.full_capacity)
        return capacity

    def _grow(self, n: int) -> None:
        """Give position ``n - 1`` a slot, unless the ring is complete."""
        capacity = self._next_capacity(n)
        if capacity <= self.capacity:
            return
        for buffers in (self.keys, self.values):
            for i, buffer in enumerate(buffers):
                more = self._zeros(buffer.shape[0], capacity - self.capacity)
                buffers[i] = mx.concatenate([buffer, more], axis=2)
        self.capacity = capacity


def rotate(keys: mx.array, shift: mx.array, rope_theta: float) -> mx.array:
    """Turn rotary ``keys``, ``(B, H, C, K)``, by ``shift`` positions, ``(B,)``; all slots alike."""
    B, _, _, K = keys.shape
    # One position for each "head": the same function, so the same frequencies, as the keys had.
    slots = keys.reshape(B, -1, 1, K)
    turned = mx.fast.rope(slots, K, traditional=True, base=rope_theta, scale=1.0, offset=shift)
    return turned.reshape(keys.shape)


def write_slots(buffer: mx.array, new: mx.array, index: RingIndex) -> mx.array:
    """Put ``new``, ``(B, H, T, K)``, into its slots of ``buffer``, ``(B, H, C, K)``."""
    new = new.astype(buffer.dtype)
    if index.contiguous:
        return mx.slice_update(buffer, new, index.slots[0, 0], axes=[2])
    return mx.put_along_axis(buffer, index.slots[:, None, :, None], new, axis=2)
