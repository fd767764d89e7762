"""Codes of a few bits in bytes.

Two orders occur in the field. ``little``: the first code takes the lowest bits of a group of whole
bytes, as MLX and ``polar_engine_v5`` do. ``big``: it takes the highest, as HLWQ's ``hlwq-q5`` does.
"""

from __future__ import annotations

from math import gcd
from typing import Literal

import mlx.core as mx

Order = Literal["little", "big"]


def pack_bits(codes: mx.array, bits: int, order: Order = "little") -> mx.array:
    """Pack codes along the last axis.

    Args:
        codes: ``(..., n)`` unsigned integers below ``2**bits``.
        bits: 1 to 8.
        order: Which end of a group the first code takes.

    Returns:
        ``(..., n * bits / 8)`` uint8.

    Raises:
        ValueError: If the codes do not fill whole groups of bytes.
    """
    per_group, n_bytes = _group(bits)
    *lead, n = codes.shape
    if n % per_group:
        raise ValueError(f"{bits}-bit codes come in groups of {per_group}, got {n}")
    groups = codes.reshape(*lead, n // per_group, per_group).astype(mx.uint32)
    out = [mx.zeros(groups.shape[:-1], mx.uint32) for _ in range(n_bytes)]
    for j in range(per_group):
        for byte, shift in _places(j, bits, n_bytes, order):
            code = groups[..., j]
            out[byte] = out[byte] | ((code << shift) if shift >= 0 else (code >> -shift)) & 255
    return mx.stack(out, axis=-1).astype(mx.uint8).reshape(*lead, n * bits // 8)


def unpack_bits(packed: mx.array, bits: int, order: Order = "little") -> mx.array:
    """The inverse of :func:`pack_bits`: ``(..., m)`` uint8 to ``(..., 8 * m / bits)`` uint8.

    Raises:
        ValueError: If the bytes are not whole groups.
    """
    per_group, n_bytes = _group(bits)
    *lead, m = packed.shape
    if m % n_bytes:
        raise ValueError(f"{bits}-bit codes come in groups of {n_bytes} bytes, got {m}")
    groups = packed.reshape(*lead, m // n_bytes, n_bytes).astype(mx.uint16)
    codes = []
    for j in range(per_group):
        code = mx.zeros(groups.shape[:-1], mx.uint16)
        for byte, shift in _places(j, bits, n_bytes, order):
            part = groups[..., byte]
            code = code | ((part >> shift) if shift >= 0 else (part << -shift))
        codes.append(code & ((1 << bits) - 1))
    return mx.stack(codes, axis=-1).astype(mx.uint8).reshape(*lead, 8 * m // bits)


def _group(bits: int) -> tuple[int, int]:
    """Codes and bytes of the smallest group of whole bytes."""
    if not 1 <= bits <= 8:
        raise ValueError(f"bits must be 1 to 8, got {bits}")
    step = gcd(bits, 8)
    return 8 // step, bits // step


def _places(j: int, bits: int, n_bytes: int, order: Order) -> list[tuple[int, int]]:
    """Bytes that hold code ``j`` of a group, each with how far left the code is moved in it."""
    first = bits * j
    if order == "big":
        first = 8 * n_bytes - bits - first
    places = [(first // 8, first % 8)]
    if first % 8 + bits > 8:
        places.append((first // 8 + 1, first % 8 - 8))
    return [(n_bytes - 1 - b if order == "big" else b, shift) for b, shift in places]
