"""Float32 products on a CPU, by NumPy.

MLX's Linux wheels bring the reference BLAS, which is 10 to 20 times slower than the OpenBLAS inside
NumPy's (``benchmarks/results.md``). NumPy reads MLX's arrays where they are; only results are
copied. On a Mac MLX uses Apple's own library, and nothing of this is needed.
"""

from __future__ import annotations

import functools
import math
import sys
from typing import Protocol

import mlx.core as mx
import numpy as np
import numpy.typing as npt

MIN_ROWS, MIN_WEIGHTS = 2, 1 << 19
"""From so many rows on, or with so large a matrix, NumPy's product pays for waiting for its input
and copying its result."""

SLOW_FROM, SLOW_TO = 5, 16
"""Rows of queries whose scores are computed four rows at a time (:func:`_scores`)."""

FEW_ROWS = 3
"""Up to so many rows are multiplied one by one: OpenBLAS reads a large matrix three times as fast
for a vector as for two."""

Float32Array = npt.NDArray[np.float32]
Complex64Array = npt.NDArray[np.complex64]


class HostPlace(Protocol):
    """Where one step writes and what it may see, as :class:`voxmlx.cache.store.RingIndex` says."""

    @property
    def offset(self) -> mx.array:
        """Position of each row's first new entry, ``(B,)``."""

    @property
    def slots(self) -> mx.array:
        """Slot of each new position, ``(B, T)``."""

    @property
    def mask(self) -> mx.array:
        """True where a query may attend, ``(B, 1, T, C)``; C is the number of slots to read."""


def on_host(dtype: mx.Dtype) -> bool:
    """Whether products of this type are for NumPy."""
    on_cpu = mx.default_device().type == mx.cpu
    return on_cpu and dtype == mx.float32 and sys.platform != "darwin"


class HostMatrix:
    """A matrix that NumPy multiplies by.

    Args:
        weight: ``(out, in)`` float32, stored column by column; never changed afterwards.
    """

    def __init__(self, weight: mx.array):
        self._weight = weight
        self._columns = _view(weight.T)

    def __call__(self, x: mx.array) -> mx.array:
        """Map rows, ``(n, in) -> (n, out)`` float32."""
        n, large = x.shape[0], self._weight.size >= MIN_WEIGHTS
        if x.dtype != mx.float32 or (n < MIN_ROWS and not large):
            return x @ self._weight.T
        rows = _view(x)
        if large and n <= FEW_ROWS:
            return mx.array(np.stack([row @ self._columns for row in rows]))
        return mx.array(rows @ self._columns)


def attend(
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    scale: float,
    mask: mx.array | None = None,
) -> mx.array:
    """Attention, ``(B, H, T, K) -> (B, H, T, K)``; key heads are shared by neighbouring queries.

    Args:
        queries: ``(B, H, T, K)``.
        keys: ``(B, G, C, K)``, ``G`` a divisor of ``H``.
        values: ``(B, G, C, K)``.
        scale: Factor on the scores.
        mask: True where a query may attend, ``(B, 1, T, C)``; ``None`` where it may everywhere.
    """
    mx.eval(queries, keys, values, [] if mask is None else mask)
    seen = None if mask is None else np.asarray(mask)
    return mx.array(_attend(_view(queries), _view(keys), _view(values), scale, seen))


def attend_joined(
    qkv: mx.array,
    keys: mx.array,
    values: mx.array,
    place: HostPlace,
    n_heads: int,
    rope_theta: float,
) -> mx.array:
    """Rotate queries and keys, put keys and values into their slots of the ring, and attend.

    The rings are changed in place, at once.

    Args:
        qkv: ``(B * T, (H + 2 G) * K)``.
        keys: The ring, ``(B, G, C, K)``; changed.
        values: The ring; changed.
        place: Positions, slots and mask of the step.
        n_heads: H.
        rope_theta: Base of the rotary angles.

    Returns:
        ``(B * T, H * K)``.
    """
    mx.eval(qkv, keys, values)
    slots, mask = np.asarray(place.slots), np.asarray(place.mask)
    (B, T), G, K = slots.shape, keys.shape[1], keys.shape[3]
    heads = _view(qkv).reshape(B, T, n_heads + 2 * G, K)
    turns = _turns(tuple(np.asarray(place.offset).tolist()), T, K, rope_theta)
    rotated = (heads[:, :, : n_heads + G].view(np.complex64) * turns).view(np.float32)
    rows, n_read = np.arange(B)[:, None], mask.shape[-1]
    k, v = _view(keys), _view(values)
    k[rows, :, slots] = rotated[:, :, n_heads:]
    v[rows, :, slots] = heads[:, :, n_heads + G :]
    queries = rotated[:, :, :n_heads].swapaxes(1, 2)
    out = _attend(queries, k[:, :, :n_read], v[:, :, :n_read], K**-0.5, mask)
    return mx.array(out.swapaxes(1, 2).reshape(B * T, n_heads * K))


def gated(y: mx.array) -> mx.array:
    """``silu(gate) * up`` of the halves of each row, ``(n, 2 F) -> (n, F)``."""
    rows = _view(y)
    gate, up = np.split(rows, 2, axis=-1)
    with np.errstate(over="ignore"):  # the quotient is then 0, as it should be
        out = np.exp(-gate)
    out += 1
    np.divide(gate, out, out=out)
    out *= up
    return mx.array(out)


def gelu(x: mx.array) -> mx.array:
    """``x * P(X < x)`` of a normal X, of any shape, within 1e-7 ``abs(x)``.

    The error function is that of Abramowitz and Stegun, 7.1.26.
    """
    values = _view(x)
    size = np.abs(values)
    size *= np.float32(math.sqrt(0.5))
    t = 1 / (1 + np.float32(0.3275911) * size)
    tail = np.full_like(t, 1.061405429)
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        tail *= t
        tail += np.float32(coefficient)
    tail *= t
    tail *= np.exp(-size * size)
    tail *= size
    tail *= np.float32(math.sqrt(0.5))
    return mx.array(np.maximum(values, 0) - tail)


def _attend(
    queries: Float32Array,
    keys: Float32Array,
    values: Float32Array,
    scale: float,
    mask: npt.NDArray[np.bool_] | None,
) -> Float32Array:
    B, H, T, K = queries.shape
    G = keys.shape[1]
    scores = _scores(
        (queries * np.float32(scale)).reshape(B, G, H // G * T, K), keys.swapaxes(-1, -2)
    )
    if mask is not None:
        np.copyto(scores.reshape(B, G, H // G, T, -1), -np.inf, where=~mask[:, :, None])
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    out: Float32Array = scores @ values
    out /= scores.sum(axis=-1, keepdims=True)
    return out.reshape(B, H, T, K)


def _scores(queries: Float32Array, keys: Float32Array) -> Float32Array:
    """Products of ``(B, G, M, K)`` and ``(B, G, K, C)``.

    For 5 to 16 rows OpenBLAS takes a path that is 2 to 3 times slower than for 4 at a time.
    """
    M = queries.shape[2]
    if not SLOW_FROM <= M <= SLOW_TO:
        return np.matmul(queries, keys)
    scores = np.empty((*queries.shape[:3], keys.shape[3]), np.float32)
    for i in range(0, M, SLOW_FROM - 1):
        part = slice(i, i + SLOW_FROM - 1)
        np.matmul(queries[:, :, part], keys, out=scores[:, :, part])
    return scores


@functools.lru_cache(maxsize=8)
def _turns(offsets: tuple[int, ...], n: int, head_dim: int, rope_theta: float) -> Complex64Array:
    """What neighbouring channels are turned by, as complex numbers, ``(B, n, 1, K / 2)``."""
    positions = np.array(offsets)[:, None] + np.arange(n)
    pairs = np.arange(head_dim // 2)
    angles = positions[:, :, None, None] * rope_theta ** (-2 * pairs / head_dim)
    return np.exp(1j * angles).astype(np.complex64)


def convolve(x: mx.array, weight: HostMatrix, kernel_size: int, stride: int) -> mx.array:
    """A convolution without padding, ``(B, T, in) -> (B, n, out)``, as a product.

    Args:
        x: Steps.
        weight: The filter, ``(out, kernel_size * in)``.
        kernel_size: Taps.
        stride: Input steps for one output step.
    """
    B, T, C = x.shape
    n = (T - kernel_size) // stride + 1
    steps = [x[:, i : i + (n - 1) * stride + 1 : stride] for i in range(kernel_size)]
    patches = mx.concatenate(steps, axis=-1).reshape(B * n, kernel_size * C)
    return weight(patches).reshape(B, n, -1)


def _view(x: mx.array) -> Float32Array:
    return np.asarray(x)
