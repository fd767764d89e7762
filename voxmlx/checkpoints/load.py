"""From a model folder to a network with its weights, in whatever layout they are published.

Every tensor is checked against the network before anything is read. Whether a module is quantised
is decided by its ``scales``, never by a rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from voxmlx.checkpoints.checkpoint import Checkpoint, and_more, open_checkpoint
from voxmlx.checkpoints.layout import Layout
from voxmlx.checkpoints.names import split_leaf
from voxmlx.checkpoints.registry import MODELS
from voxmlx.checkpoints.safetensors import LazyTensor
from voxmlx.config import ModelConfig, QuantizationConfig
from voxmlx.errors import CheckpointError
from voxmlx.quantization.modes import (
    can_pack,
    infer_quantization,
    packed_arrays,
    same_packing,
)
from voxmlx.quantization.rotated import quantize_modules


@dataclass(frozen=True)
class LoadedModel:
    """A network with its weights, and where they came from."""

    model: Any  # a network of voxmlx.models; which one, config.model_type says
    config: ModelConfig
    folder: Path
    tokenizer_path: Path
    layout: Layout


def load_model(
    folder: str | Path, dtype: mx.Dtype | None = None, lazy: bool = False
) -> LoadedModel:
    """Load a network from a folder.

    Args:
        folder: A checkpoint in any known layout.
        dtype: Floating-point type of all weights, scales included; ``None`` keeps the stored one
            (the most frequent, where a folder mixes several).
        lazy: Leave each weight on disk until it is first used.

    Raises:
        CheckpointError: If the folder is no checkpoint, or a broken one.
    """
    checkpoint = open_checkpoint(Path(folder))
    model = build_network(checkpoint)
    settings = check_tensors(checkpoint, parameter_shapes(model))
    quantize_modules(model, settings)
    if dtype is None and checkpoint.layout.common_dtype is None:
        dtype = checkpoint.dtype
    weights = _read_all(checkpoint, dtype)
    model.load_weights(list(weights.items()))
    model.eval()
    if not lazy:
        for name, array in weights.items():
            mx.eval(array)
            _check_not_zero(checkpoint, name, array)
    return LoadedModel(
        model, checkpoint.config, checkpoint.folder, checkpoint.tokenizer_path, checkpoint.layout
    )


def working_dtype() -> mx.Dtype | None:
    """Type that a network is best read in here: float32 on a CPU, ``None`` (as stored) on a GPU.

    MLX's 16-bit products are tens of times slower on a CPU; float32 takes twice their memory.
    """
    return mx.float32 if mx.default_device() == mx.cpu else None


def build_model(config: ModelConfig) -> nn.Module:
    """The network of a configuration, with random weights that are never computed if replaced.

    Raises:
        CheckpointError: If there is no such network.
    """
    if config.model_type not in MODELS:
        known = ", ".join(MODELS)
        raise CheckpointError(f"model_type must be one of {known}, got {config.model_type!r}")
    return MODELS[config.model_type](config)


def build_network(checkpoint: Checkpoint) -> nn.Module:
    """:func:`build_model` for an open checkpoint.

    Raises:
        CheckpointError: If no network has the numbers of its configuration.
    """
    try:
        return build_model(checkpoint.config)
    except (ArithmeticError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{checkpoint.folder}: no network has the numbers of its configuration: {reason}"
        ) from error


def parameters(model: nn.Module) -> dict[str, mx.array]:
    """The parameters of a network by name."""
    return cast("dict[str, mx.array]", tree_flatten(model.parameters(), destination={}))


def parameter_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shape of each parameter by name."""
    return {name: tuple(array.shape) for name, array in parameters(model).items()}


def check_tensors(
    checkpoint: Checkpoint, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, QuantizationConfig]:
    """Check that a checkpoint has exactly the tensors of a network, and find what is quantised.

    Args:
        checkpoint: An open checkpoint.
        shapes: Parameters of the network in floating point.

    Returns:
        The setting of each quantised module, by path.

    Raises:
        CheckpointError: If a tensor is missing, unknown, wrongly shaped or wrongly packed.
    """
    tensors = checkpoint.tensors
    settings = {}
    expected: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        path, leaf = split_leaf(name)
        if leaf == "weight" and f"{path}.scales" in tensors and name in tensors:
            settings[path] = _setting_of(checkpoint, path, shape)
            arrays = packed_arrays(shape, mx.float32, settings[path])
            expected |= {f"{path}.{part}": arrays[part][0] for part in arrays}
        else:
            expected[name] = shape
    _check_names(checkpoint, expected)
    for name, shape in expected.items():
        spec = tensors[name].spec
        if spec.shape != shape:
            raise CheckpointError(
                f"{_label(checkpoint, name)} has shape {spec.shape}, expected {shape}"
            )
        packed = split_leaf(name)[0] in settings and not name.endswith(".bias")
        if not packed and not mx.issubdtype(spec.dtype, mx.floating):
            raise CheckpointError(
                f"{_label(checkpoint, name)} has type {_short(spec.dtype)}, expected floating point"
            )
    return settings


def _setting_of(checkpoint: Checkpoint, path: str, shape: tuple[int, ...]) -> QuantizationConfig:
    tensors = checkpoint.tensors
    weight, scales = tensors[f"{path}.weight"].spec, tensors[f"{path}.scales"].spec
    setting = None
    if len(shape) == 2 and weight.dtype == mx.uint32 and weight.shape[:1] == shape[:1]:
        has_biases = f"{path}.biases" in tensors
        setting = infer_quantization(shape[1], weight.shape, scales.shape, has_biases)
    if setting is None:
        raise CheckpointError(
            f"{_label(checkpoint, f'{path}.weight')} has shape {weight.shape} and scales "
            f"{scales.shape}, which no quantisation of a {shape} matrix has"
        )
    config = checkpoint.config.quantization
    said = None if config is None else config.of(path)
    if said is not None and not (same_packing(said, setting) and can_pack(shape, said)):
        raise CheckpointError(
            f"{_label(checkpoint, f'{path}.weight')} is packed as {describe(setting)}, the "
            f"configuration says {describe(said)}"
        )
    return setting if said is None else QuantizationConfig(said.bits, said.group_size, said.mode)


def describe(setting: QuantizationConfig) -> str:
    """A setting in words."""
    return f"{setting.bits} bits, group {setting.group_size}, {setting.mode}"


def _check_names(checkpoint: Checkpoint, expected: Mapping[str, tuple[int, ...]]) -> None:
    missing = [name for name in expected if name not in checkpoint.tensors]
    if missing:
        outside = checkpoint.layout.external_name(missing[0])
        raise CheckpointError(
            f"{next(iter(checkpoint.tensors.values())).file}: tensor {outside!r}"
            f"{and_more(missing)} is missing; download or convert the checkpoint again"
        )
    extra = [name for name in checkpoint.tensors if name not in expected]
    if extra:
        raise CheckpointError(
            f"{_label(checkpoint, extra[0])}{and_more(extra)} has no place in the network that the "
            "configuration describes"
        )


def _label(checkpoint: Checkpoint, name: str) -> str:
    return f"{checkpoint.tensors[name].file}: tensor {checkpoint.layout.external_name(name)!r}"


def _short(dtype: mx.Dtype) -> str:
    return str(dtype).removeprefix("mlx.core.")


def _read_all(checkpoint: Checkpoint, dtype: mx.Dtype | None) -> dict[str, mx.array]:
    return {name: read_as(tensor, dtype) for name, tensor in checkpoint.tensors.items()}


def read_as(tensor: LazyTensor, dtype: mx.Dtype | None) -> mx.array:
    """A tensor's data; floating point, as codes are not, is cast to ``dtype`` if one is given."""
    array = tensor.read()
    if dtype is None:
        return array
    return array.astype(dtype) if mx.issubdtype(array.dtype, mx.floating) else array


def _check_not_zero(checkpoint: Checkpoint, name: str, array: mx.array) -> None:
    """Refuse a matrix of zeros, which a failed upload leaves; the first row tells in most cases."""
    path, leaf = split_leaf(name)
    is_matrix = leaf == "weight" and array.ndim == 2 and f"{path}.scales" not in checkpoint.tensors
    if ".ada_norm." in name or not (is_matrix or leaf == "scales"):
        return
    if not mx.any(array[0]).item() and not mx.any(array).item():
        raise CheckpointError(f"{_label(checkpoint, name)} holds only zeros; the file is damaged")
