"""Float32 products on a CPU, by NumPy.

MLX's Linux wheels bring the reference BLAS, which is 10 to 20 times slower than the OpenBLAS inside
NumPy's (``benchmarks/results.md``). NumPy reads MLX's arrays where they are; only results are
copied. On a Mac MLX uses Apple's own library, and nothing of this is needed.
"""

from __future__ import annotations

import sys

import mlx.core as mx
import numpy as np
import numpy.typing as npt

MIN_ROWS, MIN_WEIGHTS = 2, 1 << 19
"""From so many rows on, or with so large a matrix, NumPy's product pays for waiting for its input
and copying its result."""

FEW_ROWS = 3
"""Up to so many rows are multiplied one by one: OpenBLAS reads a large matrix three times as fast
for a vector as for two."""

Float32Array = npt.NDArray[np.float32]


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
    B, H, T, K = queries.shape
    G = keys.shape[1]
    q, k, v = _view(queries).reshape(B, G, H // G * T, K), _view(keys), _view(values)
    scores = (q * np.float32(scale)) @ k.swapaxes(-1, -2)
    if mask is not None:
        hidden = ~np.asarray(mask)[:, :, None]
        split = scores.reshape(B, G, H // G, T, -1)
        np.copyto(split, -np.inf, where=hidden)
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    out = scores @ v
    out /= scores.sum(axis=-1, keepdims=True)
    return mx.array(out.reshape(B, H, T, K))


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
