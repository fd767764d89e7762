"""The Walsh-Hadamard rotation in blocks, on MLX's own transform.

The matrix is Sylvester's, divided by the root of its size: symmetric and its own inverse.
"""

from __future__ import annotations

import functools
import math

import mlx.core as mx
import numpy as np

BLOCK = 128
"""Block of rotated weights: it divides every input width of the 4B model, and HLWQ uses it."""

LARGEST_BLOCK = 8192
"""Largest power of two that MLX transforms in float32 on every device."""


def block_hadamard(x: mx.array, block: int = BLOCK) -> mx.array:
    """Rotate the last axis in blocks; applied twice it gives ``x`` back.

    MLX's transform corrupts memory or returns garbage for lengths it does not support instead of
    raising (seen with 0.32.4 on the CPU), so lengths are checked here.

    Args:
        x: ``(..., n)``, ``n`` a multiple of ``block``.
        block: A power of two.

    Raises:
        ValueError: If ``block`` is no power of two, or does not divide ``n``.
    """
    if block < 1 or block > LARGEST_BLOCK or block & (block - 1):
        raise ValueError(f"block must be a power of two up to {LARGEST_BLOCK}, got {block}")
    n = x.shape[-1]
    if n % block:
        raise ValueError(f"the last axis must be a multiple of block={block}, got {n}")
    blocks = x if n == block else x.reshape(*x.shape[:-1], n // block, block)
    if mx.cuda.is_available():
        # MLX has no transform for CUDA; for short blocks a product is about as quick.
        return (blocks @ _matrix(block, x.dtype)).reshape(x.shape)
    return mx.hadamard_transform(blocks).reshape(x.shape)


@functools.cache
def _matrix(n: int, dtype: mx.Dtype) -> mx.array:
    matrix = mx.array(hadamard_matrix(n).astype(np.float32)).astype(dtype)
    mx.eval(matrix)
    return matrix


def hadamard_matrix(n: int) -> np.ndarray:
    """The same rotation as a matrix, ``(n, n)`` float64; ``n`` is a power of two."""
    h = np.ones((1, 1))
    while h.shape[0] < n:
        h = np.block([[h, h], [h, -h]])
    return h / math.sqrt(n)
