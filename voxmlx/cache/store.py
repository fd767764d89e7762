"""How a cache holds keys and values, and attends to them: plainly, in the model's own type.

Where a position goes is the business of :mod:`voxmlx.cache.ring`; a store only writes slots and
reads them. :mod:`voxmlx.cache.quantized` holds the compressed store.

Letters: B rows, H key-value heads, T new positions, C slots, K head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from voxmlx.cache.attention import attend_causal
from voxmlx.kernels import ring_attention
from voxmlx.kernels.decode import FEW_ROWS, attend_one, rotate_and_write, writes_in_place
from voxmlx.kernels.host import attend as attend_by_host
from voxmlx.kernels.host import attend_joined as attend_joined_by_host

HOST_STEPS = 4
"""Positions of a step from which attention on the host pays."""

SHORT_RING = 1024
"""Most slots that one position of FEW_ROWS attends to in a single operation; longer rings are
divided, and more rows are better served by the matrix unit."""

TURNED_SLOTS = 512
"""Slots whose keys are turned at once: 1 MB of a row at full size."""


RowSlots = dict[str, list[mx.array]]
"""Slots of one row by array and layer."""


@dataclass(frozen=True)
class RingIndex:
    """Where one step writes and what it may see; shared by all layers of a step.

    Attributes:
        offset: Position of each row's first new entry, ``(B,)`` int32.
        slots: Slot of each new position, ``(B, T)`` int32.
        first: The first of them, a scalar.
        mask: True where a query may attend, ``(B, 1, T, C)``; C is the number of slots to read.
        contiguous: Whether all rows write the same, unbroken run of slots.
        start: The first of these slots, where the slots up to it hold the positions in order, so
            that the mask is a plain causal one; ``None`` where that is not so. Known outside the
            device, it spares a copy of the mask and of the slots to read.
        in_place: Whether the rings may be changed in place (:meth:`KVStore.attend_joined`).
        window: Keys a query may see, its own included; known where ``in_place`` is.
    """

    offset: mx.array
    slots: mx.array
    first: mx.array
    mask: mx.array
    contiguous: bool
    start: int | None = None
    in_place: bool = False
    window: int = 0


class KVStore:
    """Keys and values of all layers as they are.

    Args:
        n_layers: Layers of the network.
        n_kv_heads: Key-value heads of a layer.
        head_dim: Width of a head.
        dtype: Type of the activations.
    """

    def __init__(self, n_layers: int, n_kv_heads: int, head_dim: int, dtype: mx.Dtype):
        self.n_layers = n_layers
        self.n_kv_heads = n_kv_heads
        self.head_dim = head_dim
        self.dtype = dtype
        self.by_host = False
        """Whether attention of several positions is computed by the host."""
        self.joined = True
        """Whether every layer brings queries, keys and values as one array."""
        self.buffers: dict[str, list[mx.array]] = {}

    def parts(self) -> dict[str, tuple[int, mx.Dtype]]:
        """Name, width and type of each array that one layer's slots consist of."""
        return {"keys": (self.head_dim, self.dtype), "values": (self.head_dim, self.dtype)}

    def allocate(self, batch_size: int, capacity: int) -> None:
        """Start over with empty slots."""
        self.buffers = {
            name: [
                mx.zeros((batch_size, self.n_kv_heads, capacity, width), dtype)
                for _ in range(self.n_layers)
            ]
            for name, (width, dtype) in self.parts().items()
        }

    @property
    def slot_nbytes(self) -> int:
        """Bytes of one position of one row, all layers together."""
        head = sum(width * dtype.size for width, dtype in self.parts().values())
        return self.n_layers * self.n_kv_heads * head

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(x.nbytes for layers in self.buffers.values() for x in layers)

    def grow(self, n_more: int) -> None:
        """Add empty slots at the end; evaluated array by array, to hold one copy."""
        for layers in self.buffers.values():
            for i, x in enumerate(layers):
                layers[i] = mx.pad(x, [(0, 0), (0, 0), (0, n_more), (0, 0)])
                del x
                settle(layers[i])

    def take_rows(self, rows: Sequence[int]) -> None:
        """Keep and order rows: the new row ``i`` is the old ``rows[i]``; one array at a time."""
        index = mx.array(list(rows), dtype=mx.int32)
        for layers in self.buffers.values():
            for i, x in enumerate(layers):
                layers[i] = mx.take(x, index, axis=0)
                del x
                settle(layers[i])

    def row_slots(self, row: int, n: int) -> RowSlots:
        """A copy of the first ``n`` slots of a row, ``(1, H, n, width)`` each."""
        copies = {
            name: [mx.contiguous(x[row : row + 1, :, :n]) for x in layers]
            for name, layers in self.buffers.items()
        }
        settle(copies)
        return copies

    def put_row_slots(self, row: int, slots: RowSlots) -> None:
        """Write a row's first slots, in place where nobody else reads the buffers."""
        mx.synchronize()  # what the device still works on would hold them, and they be copied
        for name, layers in self.buffers.items():
            for x, new in zip(layers, slots[name], strict=True):
                # What fills the whole buffer would become it, and steps change that in place.
                x[row : row + 1, :, : new.shape[2]] = new * 1 if new.shape == x.shape else new
        settle(self.buffers)

    def attend(
        self,
        layer: int,
        queries: mx.array,
        keys: mx.array,
        values: mx.array,
        index: RingIndex,
        scale: float,
    ) -> mx.array:
        """Write one layer's new keys and values, then attend over the slots to read.

        Args:
            layer: Index of the layer.
            queries: ``(B, Hq, T, K)``, ``Hq`` a multiple of H.
            keys: ``(B, H, T, K)``.
            values: ``(B, H, T, K)``.
            index: Slots and mask of the step.
            scale: Factor on the scores.

        Returns:
            ``(B, Hq, T, K)``.
        """
        self.write("keys", layer, keys, index)
        self.write("values", layer, values, index)
        if index.start is not None:
            n = index.start + keys.shape[2]
            k, v = (self.buffers[name][layer][:, :, :n] for name in ("keys", "values"))
            return attend_causal(queries, k, v, scale, self.by_host)
        shape = queries.shape
        if self.by_host and shape[2] >= HOST_STEPS:
            keys, values = (self.read(name, layer, index) for name in ("keys", "values"))
            return attend_by_host(queries, keys, values, scale, index.mask)
        if shape[2] == 1 and mx.default_device().type == mx.cpu:
            # The queries that share a key head become the steps of one, so that its keys are read
            # once: 8 times faster on a CPU, where nothing fuses; slower on an H200.
            queries = queries.reshape(shape[0], self.n_kv_heads, -1, shape[3])
        out = mx.fast.scaled_dot_product_attention(
            queries,
            self.read("keys", layer, index),
            self.read("values", layer, index),
            scale=scale,
            mask=index.mask,
        )
        return out.reshape(shape)

    @property
    def writes_by_host(self) -> bool:
        """Whether :meth:`attend_joined` can be used without a trace, on the host."""
        return type(self) is KVStore and self.joined and self.by_host

    @property
    def writes_in_place(self) -> bool:
        """Whether :meth:`attend_joined` can be used on this device."""
        return type(self) is KVStore and self.joined and writes_in_place(self.dtype, self.head_dim)

    def attend_joined(
        self, layer: int, qkv: mx.array, index: RingIndex, n_heads: int, rope_theta: float
    ) -> mx.array:
        """Rotate, write and attend in few operations; changes the rings without a trace in a graph.

        A later step must depend on the result of this one, or it may run first.

        Args:
            layer: Index of the layer.
            qkv: Queries, keys and values of every position, ``(B * T, (Hq + 2 H) * K)``.
            index: Slots and mask of the step.
            n_heads: Query heads Hq.
            rope_theta: Base of the rotary angles.

        Returns:
            ``(B * T, Hq * K)``.
        """
        keys, values = self.buffers["keys"][layer], self.buffers["values"][layer]
        if self.by_host:
            return attend_joined_by_host(qkv, keys, values, index, n_heads, rope_theta)
        ring = (qkv.astype(self.dtype), keys, values, index.offset, n_heads, rope_theta)
        one, few = len(qkv) == len(keys), len(keys) <= FEW_ROWS and keys.shape[2] <= SHORT_RING
        if ring_attention.suits(self.dtype, self.head_dim) and not (one and few):
            queries = rotate_and_write(*ring)
            return ring_attention.attend_ring(queries, keys, values, index.offset, index.window)
        if one:
            return attend_one(*ring, index.window)
        out = mx.fast.scaled_dot_product_attention(
            rotate_and_write(*ring),
            self.read("keys", layer, index),
            self.read("values", layer, index),
            scale=self.head_dim**-0.5,
            mask=index.mask,
        )
        return out.transpose(0, 2, 1, 3).reshape(len(qkv), -1)

    def rotate_keys(self, layer: int, shift: mx.array, rope_theta: float) -> None:
        """Turn one layer's keys by ``shift`` positions, ``(B,)``, piece by piece in their place."""
        sides = {name: x for name, x in self.buffers.items() if name.split(".")[0] == "keys"}
        capacity = next(iter(sides.values()))[layer].shape[2]
        for start in range(0, capacity, TURNED_SLOTS):
            part = slice(start, min(start + TURNED_SLOTS, capacity))
            turned = self._turned(
                {n: x[layer][:, :, part] for n, x in sides.items()}, shift, rope_theta
            )
            settle(turned)  # before the write, which is in place where nobody reads the old slots
            for name, x in turned.items():
                sides[name][layer][:, :, part] = x
            settle([x[layer] for x in sides.values()])

    def _turned(
        self, slots: dict[str, mx.array], shift: mx.array, rope_theta: float
    ) -> dict[str, mx.array]:
        """Some slots of one layer's keys, by name of the array, turned."""
        return {"keys": rotate(slots["keys"], shift, rope_theta)}

    def write(self, name: str, layer: int, new: mx.array, index: RingIndex) -> None:
        """Put ``new``, ``(B, H, T, width)``, into its slots."""
        layers = self.buffers[name]
        layers[layer] = write_slots(layers[layer], new, index)

    def read(self, name: str, layer: int, index: RingIndex) -> mx.array:
        """The slots that a step reads, ``(B, H, C, width)``."""
        x, n_read = self.buffers[name][layer], index.mask.shape[-1]
        return x if x.shape[2] == n_read else x[:, :, :n_read]


def settle(arrays: object) -> None:
    """Evaluate arrays and wait until the device has let go of what it read for them.

    A GPU's work holds its inputs a moment longer than :func:`mx.eval` waits. What is held is not
    free, and not changed in its place, but copied.
    """
    mx.eval(arrays)
    mx.synchronize()


def rotate(keys: mx.array, shift: mx.array, rope_theta: float) -> mx.array:
    """Turn rotary ``keys``, ``(B, H, C, K)``, by ``shift`` positions, ``(B,)``; all slots alike."""
    B, _, _, K = keys.shape
    # One position for each "head": the same function, so the same frequencies, as the keys had.
    slots = keys.reshape(B, -1, 1, K)
    # Back by a negative scale: MLX 0.32's CUDA kernel takes offsets of several rows as unsigned.
    for scale in (1.0, -1.0):
        offset = mx.maximum(shift if scale > 0 else -shift, 0)
        slots = mx.fast.rope(
            slots, K, traditional=True, base=rope_theta, scale=scale, offset=offset
        )
    return slots.reshape(keys.shape)


def write_slots(buffer: mx.array, new: mx.array, index: RingIndex) -> mx.array:
    """Put ``new``, ``(B, H, T, width)``, into its slots of ``buffer``, ``(B, H, C, width)``."""
    new = new.astype(buffer.dtype)
    if index.start is not None:
        buffer[:, :, index.start : index.start + new.shape[2]] = new
        return buffer
    if index.contiguous:
        return mx.slice_update(buffer, new, index.first, axes=[2])
    return mx.put_along_axis(buffer, index.slots[:, None, :, None], new, axis=2)
