"""HLWQ: Hadamard rotation, then Lloyd-Max codes, of 128 inputs at a time.

Published as "PolarQuant" until April 2026 (PyPI ``polarquant`` 0.6.0, arXiv 2603.29078 v1, since
withdrawn). A block ``w`` of 128 inputs of one output is stored as its norm ``n`` and the codes of
``z = sqrt(128) * (w / n) H``; it is read back as ``n / sqrt(128) * (c[code] H)``, with ``H`` the
Sylvester-Hadamard matrix over ``sqrt(128)`` and ``c`` Lloyd-Max centroids for a standard normal.

The centroids are those after exactly 100 steps, unconverged, as the published code makes them.
"""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from voxmlx.kernels.hadamard import block_hadamard
from voxmlx.quantization.codebook import lloyd_max, midpoints

BLOCK = 128
N_STEPS = 100
LEAST_NORM = 1e-10


def centroids(bits: int) -> np.ndarray:
    """The table of the published code, ``(2**bits,)`` float32."""
    return lloyd_max(bits, N_STEPS).astype(np.float32)


def encode(w: mx.array, bits: int) -> tuple[mx.array, mx.array]:
    """Code a matrix.

    Args:
        w: ``(out, in)``; ``in`` is padded with zeros to whole blocks.
        bits: Bits of a code.

    Returns:
        Codes ``(out, n_blocks, 128)`` uint8 and norms ``(out, n_blocks)`` float16.
    """
    rows, columns = w.shape
    n_blocks = -(-columns // BLOCK)
    w = mx.pad(w.astype(mx.float32), [(0, 0), (0, n_blocks * BLOCK - columns)])
    blocks = w.reshape(rows, n_blocks, BLOCK)
    norms = mx.maximum(mx.linalg.norm(blocks, axis=-1, keepdims=True), LEAST_NORM)
    z = block_hadamard(blocks / norms, BLOCK) * BLOCK**0.5
    codes = mx.zeros(z.shape, mx.uint8)
    for bound in midpoints(centroids(bits)):
        codes = codes + (z > float(bound))
    return codes.astype(mx.uint8), norms[..., 0].astype(mx.float16)


def decode(
    codes: mx.array,
    norms: mx.array,
    columns: int,
    table: mx.array,
    dtype: mx.Dtype = mx.bfloat16,
) -> mx.array:
    """The matrix that codes and norms stand for.

    Args:
        codes: ``(out, n_blocks, 128)`` integers.
        norms: ``(out, n_blocks)``.
        columns: Inputs of the matrix; padding beyond them is dropped.
        table: Centroids, ``(2**bits,)``, for a standard normal value.
        dtype: Type of the result.

    Returns:
        ``(out, columns)``.
    """
    rows = codes.shape[0]
    blocks = (
        block_hadamard(table[codes], BLOCK) * (norms.astype(mx.float32) / BLOCK**0.5)[..., None]
    )
    return blocks.reshape(rows, -1)[:, :columns].astype(dtype)


def looks_shuffled(codes: mx.array, bits: int) -> bool:
    """Whether codes were taken apart in the wrong bit order.

    Right codes of trained weights are bell-shaped: few at the ends, most in the middle. In the
    wrong order every code is about as frequent.
    """
    n = 1 << bits
    counts = np.bincount(np.array(codes).ravel(), minlength=n)
    quarter = n // 4
    middle = counts[quarter : n - quarter].sum()
    # A normal value falls into the middle half of an optimal table with probability 0.8 or more;
    # evenly spread codes do with 0.5.
    return bool(middle < 0.65 * counts.sum())
