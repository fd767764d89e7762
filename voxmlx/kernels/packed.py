"""Attention of one position to keys and values in few bits, written for CUDA.

MLX has no product of a batch of packed matrices there, and unpacking a long context for every token
takes longer than all else. These kernels read the codes once and unpack them in registers. Knows
arrays only, neither layers nor caches.

Letters: B rows, H query heads, G key-value heads, K head width, C slots of a ring.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any
from zlib import crc32

import mlx.core as mx

from voxmlx.kernels import packed_cuda as cuda

SPLITS = 48
"""Parts of the positions, each of them a block for every key-value head: 384 blocks for 8 heads,
three for each of an H200's 132 multiprocessors, which is what registers allow."""

THREADS = 128
MOST_SHARED = 4
"""Query heads of a key-value head at most: their sums are held in registers."""


def reads_codes(n_heads: int, n_kv_heads: int, head_dim: int) -> bool:
    """Whether :func:`attend_codes` runs here, for these heads; ``VOXMLX_KERNELS=0`` forbids it."""
    if os.environ.get("VOXMLX_KERNELS") == "0":
        return False
    fits = head_dim in (64, 128) and n_heads // n_kv_heads <= MOST_SHARED
    return fits and mx.cuda.is_available() and mx.default_device().type == mx.gpu


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
    group, scales = 0, "norms"
    if table is None:
        group, scales = K // keys["scales"].shape[-1], "scales"
    inputs = {
        **{"queries": queries, "offset": offset, "scale": mx.array([scale], mx.float32)},
        **{"k_codes": keys["codes"], "v_codes": values["codes"]},
        **{"k_scales": keys[scales], "v_scales": values[scales]},
    }
    if table is None:
        inputs |= {"k_biases": keys["biases"], "v_biases": values["biases"]}
    else:
        inputs["table"] = table
    # MLX tells kernels apart by name and template alone, so all types have to be in it.
    types = [("T", queries.dtype), ("U", keys[scales].dtype)]
    constants = {"H": H, "G": G, "K": K, "Q": H // G, "N": THREADS, "S": SPLITS}
    constants |= {"BITS": bits, "GROUP": group, "W": window}
    sums, tops, weights = _kernel("attend_codes", tuple(inputs), ("sums", "tops", "weights"))(
        inputs=list(inputs.values()),
        template=[*types, *constants.items()],
        grid=(SPLITS * THREADS, G, B),
        threadgroup=(THREADS, 1, 1),
        output_shapes=[(B, H, SPLITS, K), (B, H, SPLITS), (B, H, SPLITS)],
        output_dtypes=[mx.float32] * 3,
    )
    (out,) = _kernel("join_splits", ("sums", "tops", "weights"), ("out",))(
        inputs=[sums, tops, weights],
        template=[("T", queries.dtype), ("K", K), ("S", SPLITS)],
        grid=(B * H * K, 1, 1),
        threadgroup=(K, 1, 1),
        output_shapes=[queries.shape],
        output_dtypes=[queries.dtype],
    )
    return out


@functools.cache
def _kernel(name: str, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Any:
    source = {"attend_codes": cuda.ATTEND_CODES, "join_splits": cuda.JOIN_SPLITS}[name]
    if name == "attend_codes":
        lacking = [x for x in ("table", "k_biases", "v_biases") if x not in inputs]
        source = "".join(f"  const float* {x} = nullptr;\n" for x in lacking) + source
    # What MLX compiled stays on disk under this name, whatever the source says later.
    return mx.fast.cuda_kernel(
        name=f"voxmlx_{name}_{crc32((cuda.HEADER + source).encode()):08x}",
        input_names=list(inputs),
        output_names=list(outputs),
        source=source,
        header=cuda.HEADER,
    )
