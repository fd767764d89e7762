"""MLX's own weight formats: what may be asked for, and what arrays a packed matrix consists of.

Limits are those of ``mx.quantize`` in MLX 0.32. One mode is ours: ``affine_hadamard`` is MLX's
``affine`` for a matrix whose inputs are rotated in blocks of 128, so that no column stands out; the
layer rotates what it is given (:mod:`voxmlx.quantization.rotated`). Other readers refuse the name
of the mode instead of using such a matrix unrotated. This module knows no model and no file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from voxmlx.config import QuantizationConfig
from voxmlx.kernels.hadamard import BLOCK, block_hadamard

ROTATED = "affine_hadamard"
"""Mode of rotated matrices."""


@dataclass(frozen=True)
class ModeRules:
    """What one mode accepts; the first entries are the defaults."""

    bits: tuple[int, ...]
    group_sizes: tuple[int, ...]
    has_biases: bool
    native: str
    """MLX's name of the mode."""


BLOCK_SIZE = 2**24
"""Weights packed at once. ``mx.quantize`` of MLX 0.32 crashes on the CPU for nvfp4 matrices of the
embedding's size, 2**28.6."""

PACKED = ("weight", "scales", "biases")
"""Names of a packed matrix's arrays, in the order of ``mx.quantize``; some modes have no biases."""

MODES = {
    "affine": ModeRules((4, 2, 3, 5, 6, 8), (64, 32, 128), has_biases=True, native="affine"),
    "mxfp4": ModeRules((4,), (32,), has_biases=False, native="mxfp4"),
    "nvfp4": ModeRules((4,), (16,), has_biases=False, native="nvfp4"),
    "mxfp8": ModeRules((8,), (32,), has_biases=False, native="mxfp8"),
    ROTATED: ModeRules((4, 2, 3, 5, 6, 8), (64, 32, 128), has_biases=True, native="affine"),
}


def make_quantization(
    mode: str = "affine", bits: int | None = None, group_size: int | None = None
) -> QuantizationConfig:
    """Settings with the mode's defaults filled in.

    Raises:
        ValueError: If MLX has no such format.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    rules = MODES[mode]
    bits = rules.bits[0] if bits is None else bits
    group_size = rules.group_sizes[0] if group_size is None else group_size
    if bits not in rules.bits:
        allowed = ", ".join(map(str, sorted(rules.bits)))
        raise ValueError(f"bits of mode {mode} must be one of {allowed}, got {bits!r}")
    if group_size not in rules.group_sizes:
        allowed = ", ".join(map(str, sorted(rules.group_sizes)))
        raise ValueError(f"group size of mode {mode} must be one of {allowed}, got {group_size!r}")
    return QuantizationConfig(bits, group_size, mode)


def can_pack(shape: tuple[int, ...], setting: QuantizationConfig) -> bool:
    """Whether a ``(out, in)`` matrix divides into the setting's groups, and blocks if rotated."""
    unit = BLOCK if setting.mode == ROTATED else setting.group_size
    return len(shape) == 2 and shape[1] % unit == 0


def native_arguments(setting: QuantizationConfig) -> dict[str, Any]:
    """What MLX's functions take for a setting; a rotation is not in it."""
    native = MODES[setting.mode].native
    return {"group_size": setting.group_size, "bits": setting.bits, "mode": native}


def same_packing(a: QuantizationConfig, b: QuantizationConfig) -> bool:
    """Whether two settings give arrays of the same shapes and kind."""
    return native_arguments(a) == native_arguments(b)


def packed_arrays(
    shape: tuple[int, ...], dtype: mx.Dtype, setting: QuantizationConfig
) -> dict[str, tuple[tuple[int, ...], mx.Dtype]]:
    """Shape and type of each array of a packed ``(out, in)`` matrix of type ``dtype``."""
    rows, columns = shape
    groups = (rows, columns // setting.group_size)
    arrays = {"weight": ((rows, columns * setting.bits // 32), mx.uint32)}
    if MODES[setting.mode].has_biases:
        return {**arrays, "scales": (groups, dtype), "biases": (groups, dtype)}
    return {**arrays, "scales": (groups, mx.uint8)}


def infer_quantization(
    columns: int, weight: tuple[int, ...], scales: tuple[int, ...], has_biases: bool
) -> QuantizationConfig | None:
    """The setting that packs rows of ``columns`` numbers into arrays of these shapes.

    Args:
        columns: Inputs of the matrix.
        weight: Shape of the packed codes.
        scales: Shape of the scales.
        has_biases: Whether the matrix has affine offsets.

    Returns:
        The only setting that fits, or ``None``. Whether the matrix is rotated does not show.
    """
    for mode, rules in MODES.items():
        for bits in rules.bits:
            for group_size in rules.group_sizes:
                setting = QuantizationConfig(bits, group_size, mode)
                shape = (weight[0], columns)
                if rules.has_biases == has_biases and can_pack(shape, setting):
                    arrays = packed_arrays(shape, mx.float32, setting)
                    if arrays["weight"][0] == weight and arrays["scales"][0] == scales:
                        return setting
    return None


def quantize(
    weight: mx.array, setting: QuantizationConfig, dtype: mx.Dtype | None = None
) -> dict[str, mx.array]:
    """Pack a matrix into the arrays that :func:`packed_arrays` names.

    ``dtype`` is what the weights are cast to first; ``None`` leaves them. Works through blocks of
    rows, evaluated one by one, so that little memory is needed beside the matrix and its codes.
    """
    dtype = weight.dtype if dtype is None else dtype
    n_rows = max(1, BLOCK_SIZE // weight.shape[1])
    blocks: list[list[mx.array]] = []
    for start in range(0, weight.shape[0], n_rows):
        rows = weight[start : start + n_rows].astype(dtype)
        if setting.mode == ROTATED:
            rows = block_hadamard(rows.astype(mx.float32)).astype(dtype)
        arrays = mx.quantize(rows, **native_arguments(setting))
        mx.eval(arrays)
        blocks.append(list(arrays))
    parts = [mx.concatenate(list(part)) for part in zip(*blocks, strict=True)]
    return dict(zip(PACKED, parts, strict=False))


def dequantize(
    arrays: dict[str, mx.array], setting: QuantizationConfig, dtype: mx.Dtype
) -> mx.array:
    """The matrix that packed arrays stand for, as ``dtype``."""
    weight = mx.dequantize(
        arrays["weight"],
        arrays["scales"],
        arrays.get("biases"),
        dtype=dtype,
        **native_arguments(setting),
    )
    if setting.mode != ROTATED:
        return weight
    return block_hadamard(weight.astype(mx.float32)).astype(dtype)
