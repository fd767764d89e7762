"""HLWQ: Hadamard rotation, then Lloyd-Max codes, of 128 inputs at a time.

Published as "PolarQuant" until April 2026 (PyPI ``polarquant`` 0.6.0, arXiv 2603.29078 v1, since
withdrawn). A block ``w`` of 128 inputs of one output is stored as its norm ``n`` and the codes of
``z = sqrt(128) * (w / n) H``; it is read back as ``n / sqrt(128) * (c[code] H)``, with ``H`` the
Sylvester-Hadamard matrix over ``sqrt(128)`` and ``c`` Lloyd-Max centroids for a standard normal.

The centroids are those after exactly 100 steps, unconverged, as the published code makes them.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np

from voxmlx.config import QuantizationConfig
from voxmlx.kernels.bits import pack_bits
from voxmlx.kernels.hadamard import block_hadamard
from voxmlx.quantization.codebook import lloyd_max, midpoints

MODE = "hlwq"
"""Mode of settings that ask for this packing; MLX knows nothing of it."""

BITS = (2, 3, 4, 5, 6)
FORMAT = "hlwq-q5"
"""The published name of the spelling that is written: bytes with the first code high, and ``meta``;
the name is the same for other numbers of bits."""

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


def make_setting(bits: int) -> QuantizationConfig:
    """The setting of matrices packed in this way.

    Raises:
        ValueError: If there is no such packing.
    """
    if bits not in BITS:
        raise ValueError(f"bits of HLWQ must be one of {', '.join(map(str, BITS))}, got {bits!r}")
    return QuantizationConfig(bits, BLOCK, MODE)


def packed_arrays(shape: tuple[int, ...], bits: int) -> dict[str, tuple[tuple[int, ...], mx.Dtype]]:
    """Shape and type of each array of a packed ``(out, in)`` matrix, by the end of its name."""
    rows, columns = shape
    n_blocks = -(-columns // BLOCK)
    return {
        "weight__packed": ((rows * n_blocks * BLOCK * bits // 8,), mx.uint8),
        "weight__norms": ((rows, n_blocks), mx.float16),
        "weight__meta": ((5,), mx.int64),
    }


def pack(w: mx.array, bits: int) -> dict[str, mx.array]:
    """Pack a matrix into the arrays that :func:`packed_arrays` names."""
    codes, norms = encode(w, bits)
    meta = [*codes.shape, codes.size, w.shape[1]]
    return {
        "weight__packed": pack_bits(codes.reshape(-1), bits, "big"),
        "weight__norms": norms,
        "weight__meta": mx.array(meta, dtype=mx.int64),
    }


def describe_format(bits: int) -> dict[str, Any]:
    """All that a reader needs to know beside the arrays, for a configuration file."""
    return {
        "format": FORMAT,
        "quantization": "hlwq",
        "bits": bits,
        "block_size": BLOCK,
        "codes": "bytes; each group of whole bytes is one big-endian number, its first code on top",
        "norms": "float16, L2 norm of each block of inputs",
        "meta": ["outputs", "blocks", "block_size", "codes", "inputs"],
        "rotation": "Sylvester-Hadamard matrix H over sqrt(block_size)",
        "decode": "norm / sqrt(block_size) * (centroids[codes] @ H)",
        "centroids": [float(c) for c in centroids(bits)],
    }


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
