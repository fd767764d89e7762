"""Operations of a decoding step that MLX has no single kernel for, written for CUDA.

A step of one position launches a kernel for each operation, and launching is what takes the time.
Elsewhere the same values come from MLX's own operations. Knows arrays only, neither layers nor
caches.

Letters: B rows, T positions, H query heads, G key-value heads, K head width, C slots of a ring.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from voxmlx.kernels import decode_cuda as cuda
from voxmlx.kernels.launch import constant, on_cuda, run

HEADS = 8
"""Heads that a thread turns."""

FEW_ROWS = 4
"""Up to so many rows each query head has a block of its own; beyond, heads share what they read."""


def add_norm(x: mx.array, y: mx.array, weight: mx.array, eps: float) -> tuple[mx.array, mx.array]:
    """The sum ``x + y`` and its RMS norm, ``(n, D)`` each.

    Args:
        x: ``(n, D)``.
        y: ``(n, D)``.
        weight: Weights of the norm, ``(D,)``, or ``(n, D)`` for rows that differ.
        eps: Added to the mean square.
    """
    if not on_cuda():
        total = x + y
        if weight.ndim == 1:
            return total, mx.fast.rms_norm(total, weight, eps)
        return total, mx.fast.rms_norm(total, None, eps) * weight
    n, dim = x.shape
    threads = min(1024, -(-dim // 128) * 32)
    total, normed = _run(
        "add_norm",
        {"x": x, "y": y, "weight": weight},
        {"total": x.shape, "normed": x.shape},
        {"D": dim, "N": threads, "EACH": int(weight.ndim == 2)},
        (n * threads, 1, 1),
        threads,
        eps=eps,
    )
    return total, normed


def gated(y: mx.array) -> mx.array:
    """``silu(gate) * up`` of the halves of each row, ``(n, 2 F) -> (n, F)``."""
    if not on_cuda():
        gate, up = mx.split(y, 2, axis=-1)
        return nn.silu(gate) * up
    n, width = y.shape
    grid = (-(-n * width // 512) * 256, 1, 1)
    (out,) = _run("gated", {"y": y}, {"out": (n, width // 2)}, {"F": width // 2}, grid, 256)
    return out


def writes_in_place(dtype: mx.Dtype, head_dim: int) -> bool:
    """Whether :func:`rotate_and_write` and :func:`attend_one` can run: they change a ring.

    Arrays of MLX do not change otherwise; so nothing but the cache may hold these rings.
    """
    return on_cuda() and head_dim <= 256 and head_dim * dtype.size % 128 == 0


def rotate_and_write(
    qkv: mx.array,
    keys: mx.array,
    values: mx.array,
    offset: mx.array,
    n_heads: int,
    rope_theta: float,
) -> mx.array:
    """Rotate queries and keys, and put keys and values into their slots of the ring.

    What reads the ring afterwards must depend on the result.

    Args:
        qkv: ``(B * T, (H + 2 G) * K)``.
        keys: The ring, ``(B, G, C, K)``; changed.
        values: The ring; changed.
        offset: Position of each row's first new entry, ``(B,)`` int32.
        n_heads: H.
        rope_theta: Base of the rotary angles.

    Returns:
        Rotated queries, ``(B, H, T, K)``.
    """
    n_rows, n_kv_heads, _, head_dim = keys.shape
    T = qkv.shape[0] // n_rows
    n_blocks = -(-(n_heads + 2 * n_kv_heads) // HEADS)
    (queries,) = _run(
        "rotate_and_write",
        {
            **{"qkv": qkv, "keys": keys, "values": values, "offset": offset},
            "freqs": _frequencies(head_dim, rope_theta),
        },
        {"queries": (n_rows, n_heads, T, head_dim)},
        {"H": n_heads, "G": n_kv_heads, "K": head_dim, "EACH": HEADS},
        (n_blocks * head_dim // 2, T, n_rows),
        head_dim // 2,
    )
    return queries


def attend_one(
    qkv: mx.array,
    keys: mx.array,
    values: mx.array,
    offset: mx.array,
    n_heads: int,
    rope_theta: float,
    window: int,
) -> mx.array:
    """One position of every row: rotate, put key and value into the ring, attend to the window.

    Args:
        qkv: ``(B, (H + 2 G) * K)``.
        keys: The ring, ``(B, G, C, K)``; changed.
        values: The ring; changed.
        offset: The position of each row, ``(B,)`` int32.
        n_heads: H.
        rope_theta: Base of the rotary angles.
        window: Keys that a query sees, its own included.

    Returns:
        ``(B, H * K)``.
    """
    n_rows, n_kv_heads, _, head_dim = keys.shape
    per_block = 1 if n_rows <= FEW_ROWS else n_heads // n_kv_heads
    threads = 512 if per_block == 1 else 256
    (out,) = _run(
        "attend_one",
        {
            **{"qkv": qkv, "keys": keys, "values": values, "offset": offset},
            "freqs": _frequencies(head_dim, rope_theta),
        },
        {"out": (n_rows, n_heads * head_dim)},
        {
            **{"H": n_heads, "G": n_kv_heads, "K": head_dim},
            **{"W": window, "Q": per_block, "N": threads},
        },
        (n_heads // per_block * threads, n_rows, 1),
        threads,
    )
    return out


@functools.cache
def _frequencies(head_dim: int, rope_theta: float) -> mx.array:
    """Angle of each pair of channels for one position, ``(K / 2,)`` float32."""
    pairs = np.arange(head_dim // 2, dtype=np.float64)
    return constant(rope_theta ** (-2 * pairs / head_dim))


def _run(
    name: str,
    inputs: Mapping[str, mx.array],
    outputs: Mapping[str, Sequence[int]],
    constants: Mapping[str, int],
    grid: tuple[int, int, int],
    threads: int,
    eps: float | None = None,
) -> list[mx.array]:
    """Run a kernel over a grid of threads; the first input has the type of the outputs."""
    dtype = next(iter(inputs.values())).dtype
    source = cuda.SOURCES[name]
    if eps is not None:
        source, name = source.replace("EPS", f"{eps!r}f"), f"{name}_{eps:e}"
        name = name.replace(".", "_").replace("-", "m").replace("+", "")
    kinds = {key: (shape, dtype) for key, shape in outputs.items()}
    blocks = (grid[0] // threads, grid[1], grid[2])
    return run(name, (cuda.HEADER, source), inputs, kinds, constants, blocks, threads, dtype)
