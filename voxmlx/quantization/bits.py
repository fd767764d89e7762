"""Codes of a few bits in bytes and words.

Two orders occur in the field. ``little``: the first code takes the lowest bits, as MLX and
``polar_engine_v5`` do. ``big``: the first code takes the highest bits of a group of whole bytes, as
HLWQ's ``hlwq-q5`` does.
"""

from __future__ import annotations

from math import gcd
from typing import Literal

import numpy as np

Order = Literal["little", "big"]


def pack(codes: np.ndarray, bits: int, order: Order = "little") -> np.ndarray:
    """Pack codes along the last axis.

    Args:
        codes: ``(..., n)`` integers below ``2**bits``; ``n * bits`` is a multiple of 8.
        bits: 1 to 8.
        order: Which end of a group the first code takes.

    Returns:
        ``(..., n * bits / 8)`` uint8.

    Raises:
        ValueError: If the codes do not fill whole bytes, or one is out of range.
    """
    if codes.shape[-1] * bits % 8:
        raise ValueError(f"{codes.shape[-1]} codes of {bits} bits do not fill whole bytes")
    if codes.size and int(codes.max()) >> bits:
        raise ValueError(f"codes must be below {1 << bits}, got {int(codes.max())}")
    per_group, n_bytes = _group(bits)
    groups = codes.reshape(*codes.shape[:-1], -1, per_group).astype(np.uint64)
    value = np.zeros(groups.shape[:-1], np.uint64)
    for j in range(per_group):
        shift = bits * (j if order == "little" else per_group - 1 - j)
        value |= groups[..., j] << np.uint64(shift)
    out = [value >> np.uint64(8 * k) & np.uint64(255) for k in range(n_bytes)]
    if order == "big":
        out.reverse()
    packed = np.stack(out, axis=-1).astype(np.uint8)
    return packed.reshape(*codes.shape[:-1], codes.shape[-1] * bits // 8)


def unpack(packed: np.ndarray, bits: int, order: Order = "little") -> np.ndarray:
    """Take codes apart again, ``(..., m)`` uint8 to ``(..., 8 * m / bits)`` uint8.

    Raises:
        ValueError: If the bytes do not hold whole groups of codes.
    """
    per_group, n_bytes = _group(bits)
    if packed.shape[-1] % n_bytes:
        raise ValueError(f"{bits}-bit codes come in groups of {n_bytes} bytes, got {packed.shape}")
    groups = packed.reshape(*packed.shape[:-1], -1, n_bytes).astype(np.uint64)
    value = np.zeros(groups.shape[:-1], np.uint64)
    for k in range(n_bytes):
        shift = 8 * (k if order == "little" else n_bytes - 1 - k)
        value |= groups[..., k] << np.uint64(shift)
    mask = np.uint64((1 << bits) - 1)
    codes = []
    for j in range(per_group):
        shift = bits * (j if order == "little" else per_group - 1 - j)
        codes.append(value >> np.uint64(shift) & mask)
    return np.stack(codes, axis=-1).astype(np.uint8).reshape(*packed.shape[:-1], -1)


def _group(bits: int) -> tuple[int, int]:
    """Codes and bytes of the smallest group of whole bytes."""
    if not 1 <= bits <= 8:
        raise ValueError(f"bits must be 1 to 8, got {bits}")
    step = gcd(bits, 8)
    return 8 // step, bits // step
