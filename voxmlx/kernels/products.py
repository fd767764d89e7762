"""Few rows times a matrix of 4 bits, written for CUDA.

MLX's own product of one row decodes weights more slowly than memory brings them, and its product of
8 to 64 rows gives a matrix of 3,072 outputs to 24 of an H200's 132 processors. This one reads the
weights once, spread over all processors, and costs nearly the same for every number of rows here.
"""

from __future__ import annotations

import mlx.core as mx

from voxmlx.kernels import products_cuda as cuda
from voxmlx.kernels.launch import on_cuda, run

MAX_ROWS = 64
"""Most rows for which this product is used."""

CHUNK = 256
"""Weights that a warp takes at a time."""


def suits(x: mx.array, scales: mx.array, bits: int, group_size: int, mode: str) -> bool:
    """Whether :func:`multiply_packed` can and should multiply ``x``, ``(n, K)``."""
    return (
        on_cuda()
        and x.shape[0] <= MAX_ROWS
        and bits == 4
        and mode == "affine"
        and group_size in (32, 64, 128)
        and x.dtype in (mx.bfloat16, mx.float16)
        and x.dtype == scales.dtype
        and x.shape[1] % CHUNK == 0
    )


def multiply_packed(
    x: mx.array,
    packed: mx.array,
    scales: mx.array,
    biases: mx.array,
    group_size: int,
    gated: bool = False,
) -> mx.array:
    """Rows times a packed matrix, ``(n, K) -> (n, N)``.

    Args:
        x: ``(n, K)``, 16-bit floats.
        packed: ``(N, K / 8)`` uint32, the first weight in the lowest bits.
        scales: ``(N, K / group_size)``.
        biases: ``(N, K / group_size)``.
        group_size: Weights that share a scale.
        gated: Whether to give ``silu(gate) * up`` of the halves of each row, ``(n, N / 2)``; N is
            then a multiple of 32.
    """
    n, width = x.shape
    n_out = packed.shape[0] // (2 if gated else 1)
    row_tiles = next(tiles for tiles in (1, 2, 4, 8) if n <= 8 * tiles or tiles == 8)
    tiles = 1 if row_tiles == 1 and not gated else 2
    written = 16 * tiles // (2 if gated else 1)
    warps = _warps(width // CHUNK, {1: 12, 2: 8, 4: 6, 8: 4}[row_tiles])
    (y,) = run(
        "multiply_packed",
        (cuda.HEADER, cuda.MULTIPLY_PACKED),
        {"x": x, "packed": packed, "scales": scales, "biases": biases},
        {"y": ((n, n_out), x.dtype)},
        {"GS": group_size, "FT": tiles, "MT": row_tiles, "N": 32 * warps, "GATED": int(gated)},
        (-(-n_out // written), -(-n // (8 * row_tiles)), 1),
        32 * warps,
        x.dtype,
    )
    return y


def _warps(n_chunks: int, most: int) -> int:
    """Warps that share a row of ``n_chunks`` chunks evenly."""
    return max(n for n in range(1, most + 1) if n_chunks % n == 0)
