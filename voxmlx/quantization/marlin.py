"""Marlin's int4 tiles and MLX's affine packing of the same numbers.

Marlin stores ``w[n, k] = (q - 8) * s`` with one scale for 128 inputs of an output, shuffled for a
tensor core's fragments (IST-DASLab/marlin; the variant of vLLM's ``gptq_marlin`` for 16-bit
activations). MLX stores ``q * s + b``; with ``b = -8 * s``, which is exact in binary floating
point, both mean the same number.

Letters: N outputs, K inputs.
"""

from __future__ import annotations

import mlx.core as mx
import numpy as np

GROUP_SIZE = 128
BITS = 4
ZERO_POINT = 8
TILE_K, TILE_N = 16, 64
"""Inputs and outputs of one tile; K and N are multiples of them."""

# Axes of a tile's nibbles as stored: input tile, output tile, n % 8, k % 8 // 2, n % 64 // 16,
# then inside a word k % 2, n % 16 // 8, k % 16 // 8.
_STORED = (8, 4, 4, 2, 2, 2)
_TO_MATRIX = (0, 7, 3, 5, 1, 4, 6, 2)
_TO_ROWS = (1, 4, 5, 2, 0, 6, 3)
"""Outputs, then inputs, once the axis of ``k % 2`` is gone."""
_TO_STORED = tuple(int(i) for i in np.argsort(_TO_MATRIX))


def unpack_codes(tiles: np.ndarray) -> np.ndarray:
    """Take tiles apart, ``(K / 16, 2 * N)`` int32 to codes ``(N, K)`` uint8.

    Raises:
        ValueError: If the shape is not one of whole tiles.
    """
    rows, words = tiles.shape
    blocks = _nibbles(tiles).transpose(_TO_MATRIX)
    return np.ascontiguousarray(blocks.reshape(rows * TILE_K, words // 2).T)


def pack_codes(codes: np.ndarray) -> np.ndarray:
    """The inverse of :func:`unpack_codes`.

    Raises:
        ValueError: If N is not a multiple of 64 or K not one of 128.
    """
    n, k = codes.shape
    if n % TILE_N or k % GROUP_SIZE:
        raise ValueError(
            f"needs a multiple of {TILE_N} outputs and {GROUP_SIZE} inputs, got {codes.shape}"
        )
    stored = (k // TILE_K, n // TILE_N, *_STORED)
    split = tuple(stored[i] for i in _TO_MATRIX)
    blocks = codes.T.reshape(split).transpose(_TO_STORED).reshape(k // TILE_K, 2 * n, 8)
    shifts = BITS * np.arange(8, dtype=np.uint32)
    return np.bitwise_or.reduce(blocks.astype(np.uint32) << shifts, axis=-1).view(np.int32)


def permute_scales(scales: np.ndarray) -> np.ndarray:
    """Marlin's order of scales, ``(K / 128, N)``: 64 columns transposed as 8 by 8; self-inverse."""
    groups, n = scales.shape
    return scales.reshape(groups, n // 64, 8, 8).swapaxes(-1, -2).reshape(groups, n)


def affine_weight(tiles: mx.array) -> mx.array:
    """Tiles, ``(K / 16, 2 * N)`` int32, as MLX's packed codes, ``(N, K / 8)`` uint32."""
    pairs = tiles.view(mx.uint8)
    nibbles = mx.stack([pairs & 15, pairs >> BITS], axis=-1).reshape(_stored_shape(tiles.shape))
    joined = nibbles[..., 0, :, :] | nibbles[..., 1, :, :] << BITS  # of neighbouring inputs
    rows = mx.contiguous(joined.transpose(_TO_ROWS))
    return rows.reshape(tiles.shape[1] // 2, -1).view(mx.uint32)


def _nibbles(tiles: np.ndarray) -> np.ndarray:
    """The codes of tiles, uint8, in the axes that :data:`_STORED` describes."""
    pairs = np.ascontiguousarray(tiles, "<i4").view(np.uint8)
    codes = np.stack([pairs & 15, pairs >> BITS], axis=-1)
    return codes.reshape(_stored_shape(tiles.shape))


def _stored_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Axes of the codes of tiles of this shape.

    Raises:
        ValueError: If they are not whole tiles.
    """
    rows, words = shape
    if words % (2 * TILE_N) or rows * TILE_K % GROUP_SIZE:
        raise ValueError(f"not whole tiles of {TILE_K} inputs and {TILE_N} outputs: {shape}")
    return (rows, words // (2 * TILE_N), *_STORED)


def tiles_of(weight: np.ndarray) -> np.ndarray:
    """The inverse of :func:`affine_weight`."""
    shifts = BITS * np.arange(8, dtype=np.uint32)
    return pack_codes((weight[..., None] >> shifts & 15).astype(np.uint8).reshape(len(weight), -1))


def affine_scales(scales: np.ndarray) -> np.ndarray:
    """Marlin's scales, ``(K / 128, N)``, as MLX's, ``(N, K / 128)``; its biases are -8 of them."""
    return np.ascontiguousarray(permute_scales(scales).T)


def marlin_scales(scales: np.ndarray) -> np.ndarray:
    """The inverse of :func:`affine_scales`."""
    return permute_scales(np.ascontiguousarray(scales.T))


def quantize(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Round to nearest as the published converter does: ``s = max|w| / 8`` of 128 inputs, fp16.

    The largest positive weight of a group is clipped to seven eighths of itself.

    Args:
        w: ``(N, K)`` floating point.

    Returns:
        Codes ``(N, K)`` uint8 and scales ``(N, K / 128)`` float16.
    """
    groups = w.astype(np.float16).astype(np.float32).reshape(w.shape[0], -1, GROUP_SIZE)
    largest = np.maximum(np.abs(groups).max(axis=-1), 1e-10)
    scales = (largest / ZERO_POINT).astype(np.float16)
    codes = np.clip(np.rint(groups / scales[..., None].astype(np.float32)), -8, 7) + ZERO_POINT
    return codes.astype(np.uint8).reshape(w.shape), scales
