"""Packing of keys and values into few bits, and attention of one position to them, for CUDA.

MLX has no product of a batch of packed matrices there, and unpacking a long context for every token
takes longer than all else. These kernels read the codes once and unpack them in registers. Knows
arrays only, neither layers nor caches.

Letters: B rows, H query heads, G key-value heads, K head width, C slots of a ring.
"""

from __future__ import annotations

from collections.abc import Mapping

import mlx.core as mx

from voxmlx.kernels import packed_cuda as cuda
from voxmlx.kernels.launch import on_cuda, run

SPLITS = 48
"""Parts of the positions, each of them a block for every key-value head: 384 blocks for 8 heads,
three for each of an H200's 132 multiprocessors, which is what registers allow."""

THREADS = 128
MOST_SHARED = 4
"""Query heads of a key-value head at most: their sums are held in registers."""


def has_kernels(head_dim: int) -> bool:
    """Whether kernels for vectors of this width run here."""
    return head_dim in (64, 128) and on_cuda()


def reads_codes(n_heads: int, n_kv_heads: int, head_dim: int) -> bool:
    """Whether :func:`attend_codes` runs here, for these heads."""
    return has_kernels(head_dim) and n_heads // n_kv_heads <= MOST_SHARED


def encode(x: mx.array, bounds: mx.array, bits: int) -> tuple[mx.array, mx.array]:
    """Codes of the directions of vectors, and their norms.

    Args:
        x: ``(..., K)``.
        bounds: Middles between neighbouring entries of the table, ``(2**bits - 1,)`` float32.
        bits: Bits of a code.

    Returns:
        ``(..., K * bits / 8)`` uint8 and ``(..., 1)`` float16.
    """
    *lead, K = x.shape
    rows = mx.contiguous(x.reshape(-1, K))
    width = K * bits // 8
    codes, norms = run(
        "encode_codes",
        ("", cuda.ENCODE),
        {"x": rows, "bounds": bounds},
        {"codes": ((len(rows), width), mx.uint8), "norms": ((len(rows), 1), mx.float16)},
        {"K": K, "BITS": bits, "N": THREADS},
        (-(-8 * len(rows) // THREADS), 1, 1),
        THREADS,
        x.dtype,
    )
    return codes.reshape(*lead, width), norms.reshape(*lead, 1)


def attend_codes(
    queries: mx.array,
    keys: Mapping[str, mx.array],
    values: Mapping[str, mx.array],
    table: mx.array | None,
    offset: mx.array,
    bits: int,
    window: int,
    scale: float,
) -> mx.array:
    """Attend from one position of every row to its window, its own key included.

    Args:
        queries: ``(B, H, 1, K)``.
        keys: The ring's ``codes``, ``(B, G, C, ...)``, as they are packed by
            :mod:`voxmlx.cache.codecs`, with ``scales`` and ``biases``, or with ``norms``.
        values: The same.
        table: What codes stand for, ``(2**bits,)`` float32; ``None`` for affine codes.
        offset: The position of each row, ``(B,)`` int32.
        bits: Bits of a code.
        window: Keys that a query sees.
        scale: Factor on the scores.

    Returns:
        ``(B, H, 1, K)``.
    """
    B, H, _, K = queries.shape
    G = keys["codes"].shape[1]
    scales = "norms" if table is not None else "scales"
    inputs = {
        "queries": mx.contiguous(queries * scale),
        **{"offset": offset, "k_codes": keys["codes"], "v_codes": values["codes"]},
        **{"k_scales": keys[scales], "v_scales": values[scales]},
    }
    if table is None:
        inputs |= {"k_biases": keys["biases"], "v_biases": values["biases"]}
    else:
        inputs["table"] = table
    group = K // keys["scales"].shape[-1] if table is None else 0
    lacking = [name for name in ("table", "k_biases", "v_biases") if name not in inputs]
    absent = "".join(f"  const float* {name} = nullptr;\n" for name in lacking)
    parts = run(
        "attend_codes",
        (cuda.HEADER, absent + cuda.ATTEND_CODES),
        inputs,
        {
            "sums": ((B, H, SPLITS, K), mx.float32),
            "tops": ((B, H, SPLITS), mx.float32),
            "weights": ((B, H, SPLITS), mx.float32),
        },
        {
            **{"H": H, "G": G, "K": K, "Q": H // G, "N": THREADS, "S": SPLITS},
            **{"BITS": bits, "GROUP": group, "W": window},
        },
        (SPLITS, G, B),
        THREADS,
        queries.dtype,
    )
    (out,) = run(
        "join_splits",
        ("", cuda.JOIN_SPLITS),
        dict(zip(("sums", "tops", "weights"), parts, strict=True)),
        {"out": (queries.shape, queries.dtype)},
        {"K": K, "S": SPLITS},
        (B * H, 1, 1),
        K,
        queries.dtype,
    )
    return out
