"""A model folder opened for reading: its layout found, its tensors listed under internal names.

Nothing is read but headers and configuration. Building and filling a network is in
:mod:`voxmlx.checkpoints.load`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from voxmlx.checkpoints.config_file import Section, read_json
from voxmlx.checkpoints.files import TOKENIZER_FILE, local_choices
from voxmlx.checkpoints.layout import ConfigFormat, Layout
from voxmlx.checkpoints.names import split_layer
from voxmlx.checkpoints.registry import LAYOUTS, PACKINGS, PUBLISHED, detect_layouts
from voxmlx.checkpoints.safetensors import LazyTensor, open_safetensors
from voxmlx.config import ModelConfig, QuantizationConfig
from voxmlx.errors import CheckpointError, ConfigError
from voxmlx.quantization.modes import make_quantization

_DELAY_KEYS = ("transcription_delay_ms", "default_num_delay_tokens")
"""Where a configuration names its delay: MLX Audio and Hugging Face."""


@dataclass(frozen=True)
class Checkpoint:
    """A model folder.

    Attributes:
        folder: Where it is.
        layout: Format of the weights.
        config: Numbers of the model; its quantisation as the configuration file says it.
        tensors: By internal name, rows and axes as :mod:`voxmlx.models` wants them.
    """

    folder: Path
    layout: Layout
    config: ModelConfig
    tensors: Mapping[str, LazyTensor]

    @property
    def tokenizer_path(self) -> Path:
        """The tokenizer file; it may be missing."""
        return self.folder / TOKENIZER_FILE

    @property
    def dtype(self) -> mx.Dtype:
        """The layout's common floating-point type, or the one that holds most bytes."""
        if self.layout.common_dtype is not None:
            return self.layout.common_dtype
        sizes: dict[mx.Dtype, int] = {}
        for tensor in self.tensors.values():
            if mx.issubdtype(tensor.spec.dtype, mx.floating):
                sizes[tensor.spec.dtype] = sizes.get(tensor.spec.dtype, 0) + tensor.spec.nbytes
        if not sizes:
            raise CheckpointError(f"{self.folder}: holds no floating-point tensor")
        return max(sizes, key=lambda dtype: sizes[dtype])


def open_checkpoint(folder: Path) -> Checkpoint:
    """Open a folder in any known layout.

    Raises:
        CheckpointError: If it is no checkpoint, or a broken one; the message names the file.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder")
    problem = ""
    for weights, config_path in local_choices(folder):
        tensors = _open_all(weights)
        values = read_json(config_path)
        layouts = detect_layouts(tensors)
        for layout in layouts:
            config_format = layout.config_format(values)
            if config_format is not None:
                section = Section(values, str(config_path))
                return _build(folder, layout, config_format, tensors, section)
        problem = problem or _describe_mismatch(weights[0], tensors, layouts, config_path, values)
    raise CheckpointError(problem)


def _open_all(paths: list[Path]) -> dict[str, LazyTensor]:
    tensors: dict[str, LazyTensor] = {}
    for path in paths:
        for name, tensor in open_safetensors(path).items():
            if name in tensors:
                raise CheckpointError(f"{path}: tensor {name!r} is also in {tensors[name].file}")
            tensors[name] = tensor
    for unpack in PACKINGS:
        tensors = unpack(tensors)
    return tensors


def _describe_mismatch(
    path: Path,
    tensors: Mapping[str, LazyTensor],
    layouts: list[Layout],
    config_path: Path,
    values: Mapping[str, Any],
) -> str:
    if layouts:
        return (
            f"{config_path}: not a configuration that goes with tensors in {layouts[0].name} "
            f"layout; expected a {layouts[0].config_formats[0].name}"
        )
    first = repr(min(tensors)) if tensors else "none"
    known = ", ".join(layout.name for layout in LAYOUTS)
    return (
        f"{path}: its tensor names (first: {first}) belong to no known layout; known: {known}"
        f"{_model_type_note(values)}"
    )


def _model_type_note(values: Mapping[str, Any]) -> str:
    model_type = values.get("model_type")
    known = model_type is None or any(model_type == name for name in PUBLISHED)
    return "" if known else f" (model_type {model_type!r})"


def _build(
    folder: Path,
    layout: Layout,
    config_format: ConfigFormat,
    tensors: Mapping[str, LazyTensor],
    section: Section,
) -> Checkpoint:
    names = _internal_names(layout, tensors)
    shapes = {inside: tensors[outside].spec.shape for inside, outside in names.items()}
    try:
        config = config_format.read(section, shapes)
        quantization = _read_quantization(section.values, layout)
    except (ConfigError, ValueError) as error:
        where = "" if section.where in str(error) else f"{section.where}: "
        raise ConfigError(f"{where}{error}") from error
    _check_layers(config, names, section.where)
    if not any(name in section.values for name in _DELAY_KEYS):
        delay_ms = _tokenizer_delay_ms(folder / TOKENIZER_FILE)
        config = config if delay_ms is None else dataclasses.replace(config, delay_ms=delay_ms)
    config = dataclasses.replace(config, quantization=quantization)
    arranged = {
        inside: layout.to_internal(tensors[outside], inside, config)
        for inside, outside in names.items()
    }
    return Checkpoint(folder, layout, config, arranged)


def _tokenizer_delay_ms(path: Path) -> int | None:
    """The delay of ``tekken.json``, which is where Mistral's own folders name it.

    What is wrong with the file is said by the tokenizer, which reads all of it.
    """
    try:
        audio = read_json(path).get("audio")
    except CheckpointError:
        return None
    value = audio.get("transcription_delay_ms") if isinstance(audio, Mapping) else None
    return value if type(value) is int and value > 0 else None


def _internal_names(layout: Layout, tensors: Mapping[str, LazyTensor]) -> dict[str, str]:
    names: dict[str, str] = {}
    unknown = []
    for outside, tensor in tensors.items():
        if layout.is_unused(outside):
            continue
        inside = layout.internal_name(outside)
        if inside is None:
            unknown.append(outside)
        elif inside in names:
            raise CheckpointError(
                f"{tensor.file}: tensors {names[inside]!r} and {outside!r} are the same weight"
            )
        else:
            names[inside] = outside
    if unknown:
        raise CheckpointError(
            f"{tensors[unknown[0]].file}: unknown tensor {unknown[0]!r}{and_more(unknown)}; "
            f"{layout.model_type} in {layout.name} layout has none of that name"
        )
    return names


def _check_layers(config: ModelConfig, names: Mapping[str, str], where: str) -> None:
    for part, n_layers in (
        ("encoder", config.encoder.n_layers),
        ("decoder", config.decoder.n_layers),
    ):
        found = {split_layer(name)[1] for name in names if name.startswith(f"{part}.layers.")}
        if len(found) != n_layers:
            raise ConfigError(
                f"{where}: the {part} has {n_layers} layers, the weights have {len(found)}"
            )


def and_more(names: list[str]) -> str:
    """How many names a message leaves out."""
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _read_quantization(values: Mapping[str, Any], layout: Layout) -> QuantizationConfig | None:
    section = values.get("quantization")
    if section is None:
        section = values.get("quantization_config")
    if section is None:
        return None
    if not isinstance(section, Mapping):
        raise ConfigError(f"'quantization' must be a JSON object, got {section!r}")
    overrides: dict[str, QuantizationConfig | None] = {}
    for path, value in section.items():
        inside = _internal_path(path, layout.internal_path)
        if inside is not None and isinstance(value, Mapping):
            overrides[inside] = _read_setting(value)
        elif inside is not None and value is False:
            overrides[inside] = None
    return dataclasses.replace(_read_setting(section), overrides=overrides)


def _internal_path(path: str, own: Callable[[str], str | None]) -> str | None:
    """Translate by the layout's names, or by those of the configuration's usual writer."""
    inside = own(path)
    for layout in PUBLISHED.values():
        inside = layout.internal_path(path) if inside is None else inside
    return inside


def _read_setting(values: Mapping[str, Any]) -> QuantizationConfig:
    mode = values.get("mode", "affine")
    if not isinstance(mode, str):
        raise ConfigError(f"'mode' of 'quantization' must be a string, got {mode!r}")
    return make_quantization(mode, values.get("bits"), values.get("group_size"))
