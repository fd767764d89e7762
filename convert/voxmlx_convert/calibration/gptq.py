"""GPTQ for MLX's affine groups: columns are rounded one by one, and later ones make up for it.

Source: Frantar et al., arXiv 2210.17323. With ``H`` the second moments of a layer's inputs, the
error of a rounded column is spread over the columns that are still free so that the layer's output
changes least. Group scales are chosen when the group is reached, from the columns as they are then.
"""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from voxmlx.config import QuantizationConfig
from voxmlx.kernels.bits import pack_bits, unpack_bits
from voxmlx.kernels.hadamard import block_hadamard
from voxmlx.quantization.modes import ROTATED

DAMPING = 0.01
"""Share of the mean diagonal that is added to it (the paper's value)."""
SHRINK = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75)
"""Parts of a group's range that are tried as the range of its codes."""


def solve(
    weight: mx.array, hessian: mx.array, setting: QuantizationConfig, damping: float = DAMPING
) -> dict[str, mx.array]:
    """Pack a matrix for inputs with given second moments.

    Args:
        weight: ``(out, in)``; scales get its type.
        hessian: Sum of ``x x^T`` over the inputs, ``(in, in)``, unrotated.
        setting: Affine, rotated or not.
        damping: See :data:`DAMPING`.

    Returns:
        ``weight``, ``scales`` and ``biases`` as MLX packs them.
    """
    w, h = weight.astype(mx.float32), hessian.astype(mx.float32)
    if setting.mode == ROTATED:
        w, h = block_hadamard(w), block_hadamard(block_hadamard(h).T)
    codes, scales, biases = _solve(np.array(w), np.array(h), setting, weight.dtype, damping)
    return {
        "weight": pack_codes(mx.array(codes), setting.bits),
        "scales": mx.array(scales).astype(weight.dtype),
        "biases": mx.array(biases).astype(weight.dtype),
    }


def pack_codes(codes: mx.array, bits: int) -> mx.array:
    """Codes, ``(out, in)`` uint8, in MLX's packing, ``(out, in * bits / 32)`` uint32."""
    return pack_bits(codes, bits, "little").view(mx.uint32)


def unpack_codes(weight: mx.array, bits: int) -> mx.array:
    """The inverse of :func:`pack_codes`."""
    return unpack_bits(weight.view(mx.uint8), bits, "little")


def _solve(
    w: np.ndarray, h: np.ndarray, setting: QuantizationConfig, dtype: mx.Dtype, damping: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n_rows, n_columns = w.shape
    size = setting.group_size
    upper = _upper_factor(h, damping).astype(np.float32)
    importance = np.maximum(np.diag(h), 1e-12).astype(np.float32)
    codes = np.zeros(w.shape, np.uint8)
    scales = np.zeros((n_rows, n_columns // size), np.float32)
    biases = np.zeros_like(scales)
    for group, start in enumerate(range(0, n_columns, size)):
        block = slice(start, start + size)
        s, b = _fit_range(w[:, block], importance[block], setting.bits, dtype)
        scales[:, group], biases[:, group] = s, b
        errors = np.zeros((n_rows, size), np.float32)
        for i, column in enumerate(range(start, start + size)):
            code = _round(w[:, column], s, b, setting.bits)
            codes[:, column] = code
            errors[:, i] = (w[:, column] - (code * s + b)) / upper[column, column]
            rest = slice(column + 1, start + size)
            w[:, rest] -= errors[:, i : i + 1] * upper[column, rest]
        w[:, start + size :] -= errors @ upper[block, start + size :]
    return codes, scales, biases


def _upper_factor(h: np.ndarray, damping: float) -> np.ndarray:
    """Upper Cholesky factor of the inverse of the damped ``h``, float64."""
    h = h.astype(np.float64)
    mean = float(np.mean(np.diag(h)))
    h[np.diag_indices_from(h)] += damping * mean if mean > 0 else 1.0
    return np.linalg.cholesky(np.linalg.inv(h)).T


def _fit_range(
    w: np.ndarray, importance: np.ndarray, bits: int, dtype: mx.Dtype
) -> tuple[np.ndarray, np.ndarray]:
    """Scale and bias of each row's group, as ``dtype`` will hold them: the best shrunk range."""
    low, high = w.min(axis=1), w.max(axis=1)
    best = np.full(len(w), np.inf, np.float32)
    scale, bias = np.ones_like(best), np.zeros_like(best)
    for shrink in SHRINK:
        cut = (1 - shrink) / 2 * (high - low)
        s = np.maximum((high - low - 2 * cut) / (2**bits - 1), 1e-8)
        s, b = _as_stored(s, dtype), _as_stored(low + cut, dtype)
        rounded = _round(w, s[:, None], b[:, None], bits) * s[:, None] + b[:, None]
        error = ((w - rounded) ** 2 * importance).sum(axis=1)
        better = error < best
        best = np.where(better, error, best)
        scale, bias = np.where(better, s, scale), np.where(better, b, bias)
    return scale, bias


def _round(w: np.ndarray, s: np.ndarray, b: np.ndarray, bits: int) -> np.ndarray:
    return np.clip(np.rint((w - b) / s), 0, 2**bits - 1)


def _as_stored(x: np.ndarray, dtype: mx.Dtype) -> np.ndarray:
    return np.array(mx.array(x).astype(dtype).astype(mx.float32))
