"""Packing a network stage by stage, each for the inputs that the packed stages before it give.

Memory: one stage's weights and moments, and the activations of all samples between two stages
(10 minutes of speech through the 4B model: 0.1 GB; the largest moments, of 9216 inputs: 0.4 GB in
float32 and twice that while they are solved). Packed stages stay in the network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from voxmlx.config import QuantizationConfig
from voxmlx.models.voxtral_realtime import VoxtralRealtime
from voxmlx.quantization.modes import MODES, dequantize, quantize
from voxmlx.quantization.rotated import quantize_modules, setting_of
from voxmlx_convert.calibration.gptq import DAMPING, solve
from voxmlx_convert.calibration.samples import Sample
from voxmlx_convert.calibration.stages import Stage, first_inputs, get, replace, stages

EMBEDDING_DAMPING = 0.1
"""More than for other matrices: rows are also looked up, where every column counts the same."""
ROWS = 16384
"""Rows solved at a time; they are independent."""


class Recorder(nn.Module):
    """Adds up the second moments of what a linear layer is given.

    Args:
        layer: The layer, which still does its work.
    """

    def __init__(self, layer: Any):
        super().__init__()
        self.layer = layer
        self._sum: mx.array | None = None

    def __call__(self, x: mx.array) -> mx.array:
        """Map rows, ``(n, in) -> (n, out)``."""
        self.add(x)
        return self.layer(x)

    def add(self, x: mx.array) -> None:
        """Count rows, ``(..., in)``."""
        rows = x.reshape(-1, x.shape[-1]).astype(mx.float32)
        moments = rows.T @ rows
        self._sum = moments if self._sum is None else self._sum + moments
        mx.eval(self._sum)

    @property
    def moments(self) -> mx.array:
        """Sum of ``x x^T``, ``(in, in)`` float32."""
        if self._sum is None:
            raise RuntimeError("nothing ran through the layer")
        return self._sum


def quantize_layerwise(
    model: VoxtralRealtime,
    samples: Sequence[Sample],
    settings: Mapping[str, QuantizationConfig],
    gptq: bool = True,
    conditioned: bool = True,
    on_stage: Callable[[str], None] = lambda path: None,
) -> None:
    """Pack modules of a network in place, with GPTQ where they are affine.

    Args:
        model: The network, in floating point, not prepared for inference.
        samples: What it is run on.
        settings: By module path; others stay as they are.
        gptq: Whether to use it; without it codes are rounded to nearest.
        conditioned: See :func:`voxmlx_convert.calibration.stages.stages`.
        on_stage: Called after each stage.
    """
    if not gptq:
        quantize_modules(model, settings)
        mx.eval(model.parameters())
        return
    activations = first_inputs(model, samples)
    for stage in stages(model, conditioned):
        moments = _record(model, stage, samples, activations)
        packed = {
            path: _pack(get(model, path).weight, settings[path], moments[group[0]], path)
            for group in stage.groups
            for path in group
            if path in settings
        }
        # The stage runs on the unpacked numbers: the same values, many rows at a time.
        for path, arrays in packed.items():
            module = get(model, path)
            module.weight = dequantize(arrays, settings[path], module.weight.dtype)
        outputs = []
        for sample, x in zip(samples, activations, strict=True):
            y = stage.run(sample, x)
            mx.eval(y)
            outputs.append(y)
        activations = outputs
        install(model, packed, settings)
        mx.clear_cache()
        on_stage(stage.path)
    left = {path: s for path, s in settings.items() if setting_of(get(model, path)) is None}
    quantize_modules(model, left)


def _record(
    model: VoxtralRealtime, stage: Stage, samples: Sequence[Sample], activations: Sequence[mx.array]
) -> dict[str, mx.array]:
    """Second moments of the input of each group, by its first path."""
    if stage.path == "decoder.embed_tokens":
        head = Recorder(None)
        for sample, x in zip(samples, activations, strict=True):
            head.add(stage.run(sample, x))
        return {stage.path: head.moments}
    recorders = {group[0]: Recorder(get(model, group[0])) for group in stage.groups}
    for path, recorder in recorders.items():
        replace(model, path, recorder)
    try:
        for sample, x in zip(samples, activations, strict=True):
            mx.eval(stage.run(sample, x))
    finally:
        for path, recorder in recorders.items():
            replace(model, path, recorder.layer)
    return {path: recorder.moments for path, recorder in recorders.items()}


def _pack(
    weight: mx.array, setting: QuantizationConfig, moments: mx.array, path: str
) -> dict[str, mx.array]:
    if MODES[setting.mode].native != "affine":
        return quantize(weight, setting)
    damping = EMBEDDING_DAMPING if path.endswith("embed_tokens") else DAMPING
    parts = [
        solve(weight[start : start + ROWS], moments, setting, damping)
        for start in range(0, weight.shape[0], ROWS)
    ]
    return {name: mx.concatenate([part[name] for part in parts]) for name in parts[0]}


def install(
    model: nn.Module,
    packed: Mapping[str, Mapping[str, mx.array]],
    settings: Mapping[str, QuantizationConfig],
) -> None:
    """Put packed arrays into a network, in place of the modules at their paths."""
    quantize_modules(model, {path: settings[path] for path in packed})
    for path, arrays in packed.items():
        module = get(model, path)
        for name, array in arrays.items():
            module[name] = array
        mx.eval(module.parameters())
