"""What a conversion will write, worked out from headers alone: every tensor, its size, its setting.

Running the plan is in :mod:`voxmlx_convert.convert`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import mlx.core as mx

from voxmlx.checkpoints.checkpoint import Checkpoint
from voxmlx.checkpoints.load import (
    build_network,
    check_tensors,
    describe,
    parameter_shapes,
    read_as,
)
from voxmlx.checkpoints.names import split_leaf
from voxmlx.checkpoints.safetensors import LazyTensor, TensorSpec
from voxmlx.checkpoints.save import TensorGroup, config_values, published_layout
from voxmlx.config import QuantizationConfig
from voxmlx.errors import CheckpointError
from voxmlx.quantization import hlwq
from voxmlx.quantization.modes import PACKED, dequantize, packed_arrays, quantize
from voxmlx.quantization.recipes import is_quantizable, part_of

MAX_ERROR = 0.7
"""Relative error of a matrix that is as good as lost. On Gaussian numbers two bits have 0.4; nvfp4,
whose scales end at 2**-9, has 0.13 for a standard deviation of 0.005 and 0.96 for 0.002."""

SAMPLE_ROWS = 64
"""Rows of each matrix that are compared with what they become."""

Chooser = Callable[[str, tuple[int, ...]], QuantizationConfig | None]
"""Setting for a module's path and ``(out, in)`` weight shape; ``None`` leaves it floating point."""


@dataclass(frozen=True)
class ModulePlan:
    """One parameter of the network and what becomes of it.

    Attributes:
        name: Internal name, with ``weight`` for a matrix that is or will be packed.
        shape: Shape in floating point.
        stored: How the source packs it, if it does.
        wanted: How to pack it, if at all.
        group: The tensors to write.
    """

    name: str
    shape: tuple[int, ...]
    stored: QuantizationConfig | None
    wanted: QuantizationConfig | None
    group: TensorGroup


@dataclass(frozen=True)
class PartSize:
    """How large one part of the model is; ``settings`` says how its matrices are stored."""

    part: str
    n_weights: int
    nbytes: int
    settings: str

    @property
    def bits_per_weight(self) -> float:
        """Bits on disk for each weight, scales included."""
        return 8 * self.nbytes / self.n_weights


@dataclass(frozen=True)
class Plan:
    """Everything that will be written.

    Attributes:
        modules: Parameters in the order of the files.
        config_values: Content of ``config.json``.
        dtype: Type of the floating-point tensors.
        hlwq: Content of ``polar_config.json``, if matrices are packed as HLWQ.
    """

    modules: Sequence[ModulePlan]
    config_values: Mapping[str, Any]
    dtype: mx.Dtype
    hlwq: Mapping[str, Any] | None = None

    @property
    def total(self) -> PartSize:
        """Size of the whole model."""
        return _size("total", self.modules, self.dtype)

    @property
    def settings(self) -> dict[str, QuantizationConfig]:
        """Setting of each module that will be packed, by path."""
        return {split_leaf(m.name)[0]: m.wanted for m in self.modules if m.wanted is not None}

    @property
    def parts(self) -> list[PartSize]:
        """Sizes by part, in the order of the model."""
        by_part: dict[str, list[ModulePlan]] = {}
        for module in self.modules:
            by_part.setdefault(part_of(split_leaf(module.name)[0]), []).append(module)
        return [_size(part, modules, self.dtype) for part, modules in by_part.items()]


def _size(part: str, modules: Iterable[ModulePlan], dtype: mx.Dtype) -> PartSize:
    modules = list(modules)
    kinds = {
        describe(m.wanted) if m.wanted is not None else dtype_name(dtype)
        for m in modules
        if len(m.shape) == 2 and is_quantizable(m.name)
    }
    return PartSize(
        part,
        n_weights=sum(math.prod(m.shape) for m in modules),
        nbytes=sum(m.group.nbytes for m in modules),
        settings="; ".join(sorted(kinds)),
    )


def dtype_name(dtype: mx.Dtype) -> str:
    """A type as flags and files write it, such as ``bfloat16``."""
    return str(dtype).removeprefix("mlx.core.")


def make_plan(
    checkpoint: Checkpoint,
    dtype: mx.Dtype | None = None,
    recipe: Chooser | None = None,
    dequantized: bool = False,
    fitted: Mapping[str, Mapping[str, mx.array]] | None = None,
) -> Plan:
    """Plan a conversion into the layout that the network is published in.

    Args:
        checkpoint: The source.
        dtype: Type of the floating-point tensors; ``None`` keeps the source's.
        recipe: Which modules to quantise how; ``None`` keeps what the source has.
        dequantized: Bring every quantised module of the source back to floating point.
        fitted: Packed arrays by module path and name that take the place of rounded ones.

    Raises:
        CheckpointError: If the source is broken.
    """
    shapes = parameter_shapes(build_network(checkpoint))
    packed = check_tensors(checkpoint, shapes)
    dtype = checkpoint.dtype if dtype is None else dtype
    converter = _Converter(checkpoint, dtype, {} if fitted is None else fitted)
    modules = []
    for name, shape in shapes.items():
        path, leaf = split_leaf(name)
        stored = packed.get(path) if leaf == "weight" else None
        wanted = None
        if leaf == "weight" and is_quantizable(path) and not dequantized:
            wanted = stored if recipe is None else recipe(path, shape)
        group = converter.group(name, shape, stored, wanted)
        modules.append(ModulePlan(name, shape, stored, wanted, group))
    settings = {split_leaf(m.name)[0]: m.wanted for m in modules if m.wanted is not None}
    native = {path: s for path, s in settings.items() if s.mode != hlwq.MODE}
    values = config_values(checkpoint.config, native)
    coded = _hlwq_values(checkpoint, modules)
    if coded is not None:
        values["hlwq"] = {key: value for key, value in coded.items() if key != "layers"}
    return Plan(modules, values, converter.dtype, coded)


def _hlwq_values(checkpoint: Checkpoint, modules: Sequence[ModulePlan]) -> dict[str, Any] | None:
    """What HLWQ's own configuration file says; ``None`` if no matrix is packed so."""
    layout = published_layout(checkpoint.config)
    layers: dict[str, Any] = {}
    bits = 0
    for module in modules:
        if module.wanted is None or module.wanted.mode != hlwq.MODE:
            continue
        bits = module.wanted.bits
        path = layout.external_name(module.name).removesuffix(".weight")
        layers[path] = {
            "in_features": module.shape[1],
            "out_features": module.shape[0],
            "n_blocks": -(-module.shape[1] // hlwq.BLOCK),
            "bits": bits,
            "block_size": hlwq.BLOCK,
        }
    return {**hlwq.describe_format(bits), "layers": layers} if layers else None


class _Converter:
    """Makes the tensors of one parameter: cast, pack, unpack, or pack anew."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        dtype: mx.Dtype,
        fitted: Mapping[str, Mapping[str, mx.array]],
    ):
        self._checkpoint = checkpoint
        self._fitted = fitted
        self._layout = published_layout(checkpoint.config)
        self.dtype = dtype

    def group(
        self,
        name: str,
        shape: tuple[int, ...],
        stored: QuantizationConfig | None,
        wanted: QuantizationConfig | None,
    ) -> TensorGroup:
        path, _ = split_leaf(name)
        specs = [TensorSpec(name, shape, self.dtype)]
        if wanted is not None:
            arrays = _arrays(shape, self.dtype, wanted)
            specs = [TensorSpec(f"{path}.{leaf}", *array) for leaf, array in arrays.items()]
        outside = tuple(self._outside(spec, _unread).spec for spec in specs)
        return TensorGroup(outside, partial(self._make, specs, name, stored, wanted))

    def _make(
        self,
        specs: Sequence[TensorSpec],
        name: str,
        stored: QuantizationConfig | None,
        wanted: QuantizationConfig | None,
    ) -> list[mx.array]:
        arrays = self._compute(name, stored, wanted)
        return [
            self._outside(spec, partial(arrays.__getitem__, split_leaf(spec.name)[1])).read()
            for spec in specs
        ]

    def _compute(
        self, name: str, stored: QuantizationConfig | None, wanted: QuantizationConfig | None
    ) -> dict[str, mx.array]:
        tensors = self._checkpoint.tensors
        path, leaf = split_leaf(name)
        if wanted is not None and path in self._fitted:
            return {
                part: array if array.dtype == mx.uint32 else array.astype(self.dtype)
                for part, array in self._fitted[path].items()
            }
        if stored is None and wanted is not None:
            return self._pack(path, tensors[name].read(), wanted)
        leaves = [leaf] if stored is None else [p for p in PACKED if f"{path}.{p}" in tensors]
        arrays = {leaf: read_as(tensors[f"{path}.{leaf}"], self.dtype) for leaf in leaves}
        if stored is None or stored == wanted:
            return arrays
        weight = dequantize(arrays, stored, self.dtype)
        return {"weight": weight} if wanted is None else self._pack(path, weight, wanted)

    def _pack(
        self, path: str, weight: mx.array, setting: QuantizationConfig
    ) -> dict[str, mx.array]:
        if setting.mode == hlwq.MODE:
            return hlwq.pack(weight, setting.bits)
        sample = weight[:SAMPLE_ROWS].astype(mx.float32)
        packed = quantize(sample, setting, self.dtype)
        error = mx.linalg.norm(dequantize(packed, setting, mx.float32) - sample)
        if mx.any(error > MAX_ERROR * mx.linalg.norm(sample)):
            raise CheckpointError(
                f"{self._checkpoint.folder}: {path} is lost when stored as {describe(setting)}: "
                "its numbers are too small; choose another mode for it"
            )
        return quantize(weight, setting, self.dtype)

    def _outside(self, spec: TensorSpec, read: Callable[[], mx.array]) -> LazyTensor:
        tensor = LazyTensor(spec, self._checkpoint.folder, read)
        return self._layout.to_external(tensor, self._checkpoint.config)


def _arrays(
    shape: tuple[int, ...], dtype: mx.Dtype, setting: QuantizationConfig
) -> dict[str, tuple[tuple[int, ...], mx.Dtype]]:
    if setting.mode == hlwq.MODE:
        return hlwq.packed_arrays(shape, setting.bits)
    return packed_arrays(shape, dtype, setting)


def _unread() -> mx.array:
    raise RuntimeError("planning reads no tensor")
