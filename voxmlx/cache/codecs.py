"""Codes for vectors of a cache: encode once, then score and mix without a full-precision copy.

Two families. Affine codes are MLX's own packing, so its quantised products read them directly.
Codebook codes follow RotorQuant's IsoQuant cache: the vector's norm beside Lloyd-Max codes of its
direction; they are looked up one tile of slots at a time.

Letters: B rows, H key-value heads, R queries of a head, T new positions, C slots, K head width.
"""

from __future__ import annotations

import itertools
from typing import Protocol

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from voxmlx.kernels.bits import pack_bits
from voxmlx.kernels.launch import constant
from voxmlx.kernels.packed import encode, has_kernels
from voxmlx.quantization.codebook import lloyd_max, midpoints

Parts = dict[str, mx.array]
"""Arrays that stand for vectors, each ``(B, H, n, width)``."""

TILE = 1 << 25
"""Most numbers decoded at a time by a codebook: its working copy stays this large."""


class VectorCodec(Protocol):
    """A way of storing vectors of width K.

    Attributes:
        bits: Bits of a code.
        table: What codes stand for, ``(2**bits,)`` float32; ``None`` for affine codes.
    """

    bits: int
    table: mx.array | None

    def parts(self, dtype: mx.Dtype) -> dict[str, tuple[int, mx.Dtype]]:
        """Name, width and type of the arrays of one slot."""
        ...

    def encode(self, x: mx.array) -> Parts:
        """Store vectors, ``(B, H, T, K)``."""
        ...

    def decode(self, stored: Parts, dtype: mx.Dtype) -> mx.array:
        """The vectors that codes stand for, ``(B, H, C, K)``."""
        ...

    def scores(self, queries: mx.array, stored: Parts) -> mx.array:
        """Inner products, ``(B, H, R, K)`` with ``(B, H, C, K)``: ``(B, H, R, C)``."""
        ...

    def mix(self, weights: mx.array, stored: Parts) -> mx.array:
        """Weighted sums, ``(B, H, R, C)`` over ``(B, H, C, K)``: ``(B, H, R, K)``."""
        ...


class AffineCodec:
    """MLX's affine groups along a head.

    Args:
        dim: Width K of a vector.
        bits: 2, 3, 4 or 8.

    Raises:
        ValueError: If no group size divides ``dim``.
    """

    def __init__(self, dim: int, bits: int):
        sizes = [size for size in (64, 32) if dim % size == 0]
        if not sizes:
            raise ValueError(f"kv_bits needs a head width that is a multiple of 32, got {dim}")
        self.dim, self.bits, self.group_size = dim, bits, sizes[0]
        self.table: mx.array | None = None

    def parts(self, dtype: mx.Dtype) -> dict[str, tuple[int, mx.Dtype]]:
        """Name, width and type of the arrays of one slot."""
        groups = self.dim // self.group_size
        codes = (self.dim * self.bits // 32, mx.uint32)
        return {"codes": codes, "scales": (groups, dtype), "biases": (groups, dtype)}

    def encode(self, x: mx.array) -> Parts:
        """Store vectors, ``(B, H, T, K)``."""
        arrays = mx.quantize(x, group_size=self.group_size, bits=self.bits)
        return dict(zip(("codes", "scales", "biases"), arrays, strict=True))

    def decode(self, stored: Parts, dtype: mx.Dtype) -> mx.array:
        """The vectors that codes stand for, ``(B, H, C, K)``."""
        x = mx.dequantize(*_ordered(stored), group_size=self.group_size, bits=self.bits)
        return x.astype(dtype)

    def scores(self, queries: mx.array, stored: Parts) -> mx.array:
        """Inner products, ``(B, H, R, C)``."""
        return self._product(queries, stored, transpose=True)

    def mix(self, weights: mx.array, stored: Parts) -> mx.array:
        """Weighted sums, ``(B, H, R, K)``."""
        return self._product(weights, stored, transpose=False)

    def _product(self, x: mx.array, stored: Parts, transpose: bool) -> mx.array:
        if mx.cuda.is_available():  # MLX 0.32 has no batched quantised product there
            vectors = self.decode(stored, x.dtype)
            return x @ (vectors.swapaxes(-1, -2) if transpose else vectors)
        return mx.quantized_matmul(
            x,
            *_ordered(stored),
            transpose=transpose,
            group_size=self.group_size,
            bits=self.bits,
        )


class CodebookCodec:
    """A norm, and Lloyd-Max codes of the direction's components.

    Components of a random direction in K dimensions are close to normal with variance ``1/K``, for
    which the table is made.

    Args:
        dim: Width K of a vector, a multiple of 8.
        bits: 2, 3, 4 or 8.

    Raises:
        ValueError: If ``dim`` is not a multiple of 8.
    """

    def __init__(self, dim: int, bits: int):
        if dim % 8:
            raise ValueError(f"kv_bits needs a head width that is a multiple of 8, got {dim}")
        self.dim, self.bits = dim, bits
        table = lloyd_max(bits) / np.sqrt(dim)
        self.table: mx.array | None = constant(table)
        bounds = midpoints(table)
        self._bounds = constant(bounds)
        self._nearest = _Nearest(bounds)
        n_codes = 12 // bits if bits == 3 else 8 // bits
        runs = [run[::-1] for run in itertools.product(table, repeat=n_codes)]
        self._runs = constant(np.array(runs))

    def parts(self, dtype: mx.Dtype) -> dict[str, tuple[int, mx.Dtype]]:
        """Name, width and type of the arrays of one slot."""
        return {"codes": (self.dim * self.bits // 8, mx.uint8), "norms": (1, mx.float16)}

    def encode(self, x: mx.array) -> Parts:
        """Store vectors, ``(B, H, T, K)``."""
        if has_kernels(self.dim):
            codes, norms = encode(x, self._bounds, self.bits)
            return {"codes": codes, "norms": norms}
        x = x.astype(mx.float32)
        norms = mx.linalg.norm(x, axis=-1, keepdims=True)
        codes = self._nearest(x / mx.maximum(norms, 1e-8))
        return {"codes": pack_bits(codes, self.bits), "norms": norms.astype(mx.float16)}

    def decode(self, stored: Parts, dtype: mx.Dtype) -> mx.array:
        """The vectors that codes stand for, ``(B, H, C, K)``."""
        return (self._units(stored, dtype) * stored["norms"].astype(mx.float32)).astype(dtype)

    def scores(self, queries: mx.array, stored: Parts) -> mx.array:
        """Inner products, ``(B, H, R, C)``."""
        tiles = [
            _scaled(queries @ self._units(tile, queries.dtype).swapaxes(-1, -2), tile["norms"])
            for tile in self._tiles(stored)
        ]
        return tiles[0] if len(tiles) == 1 else mx.concatenate(tiles, axis=-1)

    def mix(self, weights: mx.array, stored: Parts) -> mx.array:
        """Weighted sums, ``(B, H, R, K)``."""
        out, start = None, 0
        for tile in self._tiles(stored):
            n = tile["codes"].shape[2]
            scaled = _scaled(weights[..., start : start + n], tile["norms"])
            part = scaled @ self._units(tile, weights.dtype)
            out = part if out is None else out + part
            start += n
        if out is None:
            raise ValueError("there are no slots to mix")
        return out

    def _units(self, stored: Parts, dtype: mx.Dtype) -> mx.array:
        """Directions, ``(B, H, C, K)``: a byte, or 12 bits of three, name a run of components."""
        codes = stored["codes"]
        if self.bits == 3:
            x = codes.reshape(*codes.shape[:-1], -1, 3).astype(mx.uint16)
            low, middle, high = (x[..., i] for i in range(3))
            codes = mx.stack([low | (middle & 15) << 8, middle >> 4 | high << 4], axis=-1)
        units = self._runs.astype(dtype)[codes]
        return units.reshape(*stored["codes"].shape[:-1], self.dim)

    def _tiles(self, stored: Parts) -> list[Parts]:
        B, H, n_slots, _ = stored["codes"].shape
        size = max(1, TILE // (B * H * self.dim))
        if size >= n_slots:
            return [stored]
        starts = range(0, n_slots, size)
        return [{k: x[:, :, s : s + size] for k, x in stored.items()} for s in starts]


def _ordered(stored: Parts) -> tuple[mx.array, mx.array, mx.array]:
    return stored["codes"], stored["scales"], stored["biases"]


def _scaled(x: mx.array, norms: mx.array) -> mx.array:
    """One number for each slot, ``(B, H, R, C)``, times the norms, ``(B, H, C, 1)``."""
    return (x * norms.astype(mx.float32).swapaxes(-1, -2)).astype(x.dtype)


class _Nearest:
    """Codes of the nearest centroids, by a table of cells that hold one bound at most.

    Args:
        bounds: Middles between neighbouring centroids, ascending.
    """

    def __init__(self, bounds: npt.NDArray[np.float64]):
        gap = np.diff(bounds).min() if len(bounds) > 1 else 1.0
        cell = gap / 2
        self._low, self._per_cell = float(bounds[0]) - cell, float(1 / cell)
        edges = np.arange(self._low, bounds[-1] + 2 * cell, cell)
        # Half a thousandth of a cell allows for the rounding of float32.
        below = np.searchsorted(bounds, edges - cell / 2000)
        self._last = len(edges) - 1
        self._codes = mx.array(below.astype(np.uint32))
        self._bounds = constant(np.append(bounds, np.inf))

    def __call__(self, x: mx.array) -> mx.array:
        """The number of bounds below each value, uint32."""
        cells = mx.clip((x - self._low) * self._per_cell, 0, self._last).astype(mx.uint32)
        codes = self._codes[cells]
        return codes + (x > self._bounds[codes]).astype(mx.uint32)
