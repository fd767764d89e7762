"""Few rows times a matrix of 4 bits, written for CUDA.

MLX's own product of one row decodes weights more slowly than memory brings them, and its product of
8 to 64 rows gives a matrix of 3,072 outputs to 24 of an H200's 132 processors. This one reads the
weights once, spread over all processors, and costs nearly the same for every number of rows here.
"""

from __future__ import annotations

import mlx.core as mx

from voxmlx.kernels import products_cuda as cuda
from voxmlx.kernels.launch import on_cuda, run

MAX_ROWS = 512
"""Most rows for which this product is used, 32 at a time. MLX's own takes longer, at 64 about twice
as long, and its compiling takes many seconds."""

NORM_ROWS = 8
"""Most rows whose norm a product takes on: each of its blocks computes it."""

TILES = {1: (12, 4), 4: (6, 6)}
"""By tiles of 8 rows: warps of a block, without and with gates. Each form is compiled apart, so
they are few; 8 tiles were no faster for 64 rows (``benchmarks/results.md``)."""

NORM_WARPS = (8, 4)
"""The same where rows go through a norm before."""

Packed = tuple[mx.array, mx.array, mx.array]
"""A matrix ``(N, K / 8)`` uint32, the first weight in the lowest bits, and scales and biases,
``(N, K / group_size)`` each."""

CHUNK = 256
"""Weights that a warp takes at a time."""


def suits(x: mx.array, packed: Packed, group_size: int) -> bool:
    """Whether :func:`multiply_packed` can and should multiply ``x``, ``(n, K)``."""
    return x.shape[0] <= MAX_ROWS and fits(x.dtype, packed, group_size)


def fits(dtype: mx.Dtype, packed: Packed, group_size: int) -> bool:
    """Whether :func:`multiply_packed` can multiply by a matrix at all."""
    matrix, scales, _ = packed
    return (
        on_cuda()
        and group_size in (32, 64, 128)
        and dtype in (mx.bfloat16, mx.float16)
        and dtype == scales.dtype
        and matrix.shape[1] * 8 % CHUNK == 0
    )


def multiply_packed(
    x: mx.array,
    packed: Packed,
    group_size: int,
    gated: bool = False,
    norm: tuple[mx.array, float] | None = None,
    add: mx.array | None = None,
    bias: mx.array | None = None,
) -> mx.array:
    """Rows times a packed matrix, ``(n, K) -> (n, N)``.

    Args:
        x: ``(n, K)``, 16-bit floats.
        packed: The matrix ``(N, K)``, its scales and biases.
        group_size: Weights that share a scale.
        gated: Whether to give ``silu(gate) * up`` of the halves of each row, ``(n, N / 2)``; N is
            then a multiple of 32.
        norm: Weights and epsilon of the RMS norm that the rows go through before, ``(K,)`` or
            ``(n, K)``; for at most NORM_ROWS rows.
        add: What is added to the product, ``(n, N)``.
        bias: What is added to each of its rows before, ``(N,)``.
    """
    n, width = x.shape
    n_out = packed[0].shape[0] // (2 if gated else 1)
    row_tiles = next(tiles for tiles in TILES if n <= 8 * tiles or tiles == max(TILES))
    tiles = 1 if row_tiles == 1 and not gated else 2
    written = 16 * tiles // (2 if gated else 1)
    n_blocks = -(-n_out // written)
    warps = TILES[row_tiles][int(gated)] if norm is None else NORM_WARPS[int(gated)]
    warps = min(warps, width // CHUNK)  # a warp without work would not wait
    inputs = {"x": x, "packed": packed[0], "scales": packed[1], "biases": packed[2]}
    constants = {"GS": group_size, "FT": tiles, "MT": row_tiles, "N": 32 * warps}
    constants |= {"GATED": int(gated)}
    name = "multiply_packed"
    if norm is not None:
        inputs["norm"] = norm[0]
        constants["EACH"] = int(norm[0].ndim == 2)
        name = f"norm_{name}"
    if bias is not None:
        inputs["shift"] = bias
        name = f"{name}_bias"
    if add is not None:
        inputs["add"] = add
        name = f"{name}_add"
    text = cuda.product(None if norm is None else norm[1], bias is not None, add is not None)
    (y,) = run(
        name,
        (cuda.HEADER, text),
        inputs,
        {"y": ((n, n_out), x.dtype)},
        constants,
        (n_blocks, -(-n // (8 * row_tiles)), 1),
        32 * warps,
        x.dtype,
    )
    return y
