"""The growing cache: every key and value of a text, in order, up to a fixed context.

Nothing is ever overwritten, so any number of newest positions can be taken back; that is how one
conversation's cache serves the next turn. A step reads only the slots in use.
"""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx

from voxmlx.cache.quantized import LONG_STEP
from voxmlx.cache.ring import RingKVCache, RingPlace
from voxmlx.cache.store import KVStore, RingIndex
from voxmlx.kernels.launch import on_device

ROOM = 1024
"""Slots added at a time: little memory unused, and one copy in as many positions."""

READ = 256
"""Steps read a multiple of this many slots (few shapes, few allocations)."""


class GrowingKVCache(RingKVCache):
    """Keys and values of all layers of one network, without a sliding window.

    :meth:`rewind` takes any number of positions back.

    Args:
        store: Holds the slots; emptied here.
        context: Most positions held.
        batch_size: Rows.
    """

    def __init__(self, store: KVStore, context: int, batch_size: int = 1):
        super().__init__(store, context, 0, batch_size)

    def place(self, n_new: int) -> RingPlace:
        """Make room for ``n_new`` positions in every row and say where they go.

        Raises:
            ValueError: If they do not fit into the context.
        """
        end = max(self.offsets) + n_new
        if end > self.window:
            raise ValueError(f"the context holds {self.window} positions, {end} are needed")
        self._grow(end)
        n_read = min(-(-end // READ) * READ, self.capacity)
        contiguous = len(set(self.offsets)) == 1
        return RingPlace(n_new, self.capacity, n_read, self.window, contiguous)

    def prepare(self, n_new: int) -> RingIndex:
        """Slots and mask of the next ``n_new`` positions; see the base class."""
        index = super().prepare(n_new)
        index = replace(index, in_place=False, offset=on_device(index.offset))
        return replace(index, start=self.offsets[0]) if index.contiguous else index

    def attend(
        self,
        layer: int,
        queries: mx.array,
        keys: mx.array,
        values: mx.array,
        index: RingIndex,
        scale: float,
    ) -> mx.array:
        """See the base class; a long step is evaluated layer by layer, to hold one layer's work."""
        out = super().attend(layer, queries, keys, values, index, scale)
        if queries.shape[2] >= LONG_STEP:
            mx.eval(out)
        return out

    def _next_capacity(self, n: int) -> int:
        return min(-(-n // ROOM) * ROOM, self.window)
