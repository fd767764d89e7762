"""Attention over rings, written for CUDA: positions say what a query sees, so there is no mask.

MLX turns a mask into an array of as many numbers as there are scores, for every layer, and plans
anew for each number of keys.
"""

from __future__ import annotations

import mlx.core as mx

from voxmlx.kernels import products_cuda, ring_attention_cuda
from voxmlx.kernels.launch import run

TILE = 16
"""Queries of a block."""

THREADS = 128

BLOCKS = 264
"""Blocks that keep an H200 busy, two for each of its processors."""

LEAST_SLOTS = 256
"""Slots of a block at least: what parts found is joined by one more operation."""


def suits(dtype: mx.Dtype, head_dim: int) -> bool:
    """Whether :func:`attend_ring` can attend to rings of this kind."""
    return dtype in (mx.bfloat16, mx.float16) and head_dim in (64, 128)


def attend_ring(
    queries: mx.array, keys: mx.array, values: mx.array, offset: mx.array, window: int
) -> mx.array:
    """Attend from the newest positions of every row to its window.

    Args:
        queries: ``(B, H, T, K)``, rotated.
        keys: The ring, ``(B, G, C, K)``, with the keys of these positions in it.
        values: The ring.
        offset: Position of each row's first query, ``(B,)`` int32.
        window: Keys that a query sees, its own included.

    Returns:
        ``(B * T, H * K)``.
    """
    B, n_heads, T, width = queries.shape
    n_kv_heads, capacity = keys.shape[1:3]
    n_queries = n_heads // n_kv_heads * T
    n_blocks = B * n_kv_heads * -(-n_queries // TILE)
    n_parts = 1
    while 2 * n_parts * LEAST_SLOTS <= capacity and n_parts * n_blocks < BLOCKS:
        n_parts *= 2
    rows = (B * T, n_heads * width)
    parts = (B, n_kv_heads, n_queries, n_parts)
    outputs: dict[str, tuple[tuple[int, ...], mx.Dtype]] = {"out": (rows, queries.dtype)}
    if n_parts > 1:
        outputs = {
            "parts": ((*parts, width), mx.float32),
            "sums": ((*parts, 2), mx.float32),
        }
    name = "attend_ring" if n_parts == 1 else "attend_ring_parts"
    heads = {"H": n_heads, "G": n_kv_heads, "K": width}
    found = run(
        name,
        (products_cuda.HEADER, ring_attention_cuda.SOURCES[name]),
        {"queries": queries, "keys": keys, "values": values, "offset": offset},
        outputs,
        {**heads, "W": window, "N": THREADS},
        (n_kv_heads * -(-n_queries // TILE), B, n_parts),
        THREADS,
        queries.dtype,
    )
    if n_parts == 1:
        return found[0]
    (out,) = run(
        "join_parts",
        ("", ring_attention_cuda.SOURCES["join_parts"]),
        {"parts": found[0], "sums": found[1]},
        {"out": (rows, queries.dtype)},
        heads,
        (n_kv_heads * n_queries, B, 1),
        width,
        queries.dtype,
    )
    return out
