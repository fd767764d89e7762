"""Writing checkpoints: tensors one by one into shards, an index and a configuration.

The headers are computed from shapes alone, so no more than one group of tensors is in memory. The
configuration is written last: a folder without it does not load.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from voxmlx.checkpoints.files import CONFIG_FILE, INDEX_FILE
from voxmlx.checkpoints.layout import Layout
from voxmlx.checkpoints.load import parameters
from voxmlx.checkpoints.registry import PUBLISHED
from voxmlx.checkpoints.safetensors import LazyTensor, SafetensorsWriter, TensorSpec, output_error
from voxmlx.config import ModelConfig, QuantizationConfig
from voxmlx.quantization.rotated import setting_of

MAX_SHARD_BYTES = 5_000_000_000
"""What mlx-lm and Transformers use; the Hub advises files of this order."""


@dataclass(frozen=True)
class TensorGroup:
    """Tensors that are computed together, such as the arrays of a packed matrix.

    Attributes:
        specs: What they will be, by external name.
        make: Computes them, in the order of ``specs``.
    """

    specs: tuple[TensorSpec, ...]
    make: Callable[[], Sequence[mx.array]]

    @property
    def nbytes(self) -> int:
        """Bytes of all its tensors."""
        return sum(spec.nbytes for spec in self.specs)


def single(tensor: LazyTensor) -> TensorGroup:
    """A group of one tensor that is already under its external name."""
    return TensorGroup((tensor.spec,), lambda: [tensor.read()])


def array_group(name: str, array: mx.array) -> TensorGroup:
    """A group of one array in memory under its external name."""
    return TensorGroup((TensorSpec(name, tuple(array.shape), array.dtype),), lambda: [array])


def derived_groups(config: ModelConfig) -> list[TensorGroup]:
    """Tensors that the published layout stores though the network computes them."""
    derived = published_layout(config).derived(config)
    return [array_group(name, array) for name, array in derived.items()]


def write_checkpoint(
    folder: Path,
    groups: Sequence[TensorGroup],
    config_values: Mapping[str, Any],
    max_shard_bytes: int = MAX_SHARD_BYTES,
    on_group: Callable[[TensorGroup], None] = lambda group: None,
) -> None:
    """Write weights, index and configuration into an existing folder.

    Args:
        folder: Where to write.
        groups: The tensors, in the order of the files.
        config_values: Content of ``config.json``.
        max_shard_bytes: Most tensor bytes of one file, unless one group alone is larger.
        on_group: Called after each group, for progress.

    Raises:
        OutputError: If the disk is full or fails.
    """
    shards = split_shards(groups, max_shard_bytes)
    weight_map: dict[str, str] = {}
    for i, shard in enumerate(shards, start=1):
        name = "model.safetensors"
        if len(shards) > 1:
            name = f"model-{i:05d}-of-{len(shards):05d}.safetensors"
        _write_shard(folder / name, shard, on_group)
        weight_map |= {spec.name: name for group in shard for spec in group.specs}
    total = sum(group.nbytes for group in groups)
    index = {
        "metadata": {"total_size": total},
        "weight_map": dict(sorted(weight_map.items())),
    }
    write_json(folder / INDEX_FILE, index)
    write_json(folder / CONFIG_FILE, config_values)


def _write_shard(
    path: Path, groups: Iterable[TensorGroup], on_group: Callable[[TensorGroup], None]
) -> None:
    groups = list(groups)
    writer = SafetensorsWriter(path, [spec for group in groups for spec in group.specs])
    try:
        for group in groups:
            for array in group.make():
                writer.write(array)
            mx.clear_cache()  # or the allocator keeps every tensor's memory for the next
            on_group(group)
    except BaseException:
        writer.abort()
        raise
    writer.close()


def split_shards(groups: Iterable[TensorGroup], max_bytes: int) -> list[list[TensorGroup]]:
    """Cut a list of groups into runs of at most ``max_bytes``, or of one larger group."""
    shards: list[list[TensorGroup]] = [[]]
    size = 0
    for group in groups:
        if shards[-1] and size + group.nbytes > max_bytes:
            shards.append([])
            size = 0
        shards[-1].append(group)
        size += group.nbytes
    return shards


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file.

    Raises:
        OutputError: If the disk is full or fails.
    """
    try:
        path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise output_error(path, error) from error


def config_values(
    config: ModelConfig, settings: Mapping[str, QuantizationConfig]
) -> dict[str, Any]:
    """Content of ``config.json`` for a network in its published layout.

    Args:
        config: Numbers of the model; its own quantisation is not looked at.
        settings: Setting of each quantised module, by internal path.
    """
    layout = published_layout(config)
    if layout.write_config is None:
        raise ValueError(f"{layout.name} layout is only read")
    values = layout.write_config(config)
    if settings:
        section = quantization_section(settings, layout)
        values |= {"quantization": section, "quantization_config": section}
    return values


def published_layout(config: ModelConfig) -> Layout:
    """The layout that a network is written in."""
    return PUBLISHED[config.model_type]


def quantization_section(
    settings: Mapping[str, QuantizationConfig], layout: Layout
) -> dict[str, Any]:
    """The most frequent setting, and under its path each module that has another."""
    keys = {path: (s.group_size, s.bits, s.mode) for path, s in settings.items()}
    (usual, _), *_ = Counter(keys.values()).most_common()
    section: dict[str, Any] = _setting_values(usual)
    for path, key in keys.items():
        if key != usual:
            section[layout.external_name(f"{path}.weight").removesuffix(".weight")] = (
                _setting_values(key)
            )
    return section


def _setting_values(key: tuple[int, int, str]) -> dict[str, Any]:
    return dict(zip(("group_size", "bits", "mode"), key, strict=True))


def _same(array: mx.array) -> mx.array:
    return array


def save_model(
    model: nn.Module, config: ModelConfig, folder: Path, max_shard_bytes: int = MAX_SHARD_BYTES
) -> None:
    """Write a network as it is in memory, quantised modules included.

    Args:
        model: A network of :mod:`voxmlx.models`, or one quantised by ``nn.quantize``.
        config: Its numbers.
        folder: A folder; made if missing.
        max_shard_bytes: Most tensor bytes of one file.

    Raises:
        OutputError: If the disk is full or fails.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error
    layout = published_layout(config)
    groups = derived_groups(config)
    for name, array in parameters(model).items():
        spec = TensorSpec(name, tuple(array.shape), array.dtype)
        tensor = LazyTensor(spec, folder, partial(_same, array))
        groups.append(single(layout.to_external(tensor, config)))
    packed = {path: setting_of(module) for path, module in model.named_modules()}
    settings = {path: setting for path, setting in packed.items() if setting is not None}
    write_checkpoint(folder, groups, config_values(config, settings), max_shard_bytes)
