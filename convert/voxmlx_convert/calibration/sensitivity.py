"""A recipe for a size: bits go where a byte more buys most fidelity.

The loss of a unit (matrices that read one input) is measured: its matrices alone are rounded to
4 bits and the float model's distributions are compared with and without. Other bit widths are
taken to lose in proportion to the squared error of the weights. Losses of units are added up.
"""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from voxmlx.config import QuantizationConfig
from voxmlx.models.voxtral_realtime import VoxtralRealtime
from voxmlx.quantization.modes import (
    can_pack,
    dequantize,
    make_quantization,
    packed_arrays,
    quantize,
)
from voxmlx_convert.calibration.samples import Sample, logits, mean_kl
from voxmlx_convert.calibration.stages import get, stages

MEASURED_BITS = 4
BITS = (3, 4, 5, 6, 8)
ERROR_ROWS = 512
"""Rows whose rounding errors stand for the whole matrix."""

_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(GB|MB|GiB|MiB)\s*$", re.IGNORECASE)
_UNITS = {"gb": 1e9, "mb": 1e6, "gib": 2**30, "mib": 2**20}


@dataclass(frozen=True)
class Unit:
    """Matrices that get the same number of bits.

    Attributes:
        paths: Modules.
        costs: Bytes for each number of bits.
        losses: Expected divergence for each number of bits, in nats.
    """

    paths: tuple[str, ...]
    costs: Mapping[int, int]
    losses: Mapping[int, float]


def parse_size(text: str) -> int:
    """Bytes of a size such as ``2.4GB``.

    Raises:
        ValueError: If it is none.
    """
    match = _SIZE.match(text)
    if match is None:
        raise ValueError(f"a size is a number with GB, MB, GiB or MiB, such as 2.4GB, got {text!r}")
    return round(float(match[1]) * _UNITS[match[2].lower()])


def measure_units(
    model: VoxtralRealtime,
    samples: Sequence[Sample],
    mode: str,
    group_size: int,
    dtype: mx.Dtype,
    on_unit: Callable[[str], None] = lambda path: None,
) -> list[Unit]:
    """Costs and losses of every unit of a float network.

    Args:
        model: In floating point; the same afterwards.
        samples: What it is run on, once for each unit.
        mode: Affine, rotated or not.
        group_size: Weights that share a scale.
        dtype: Type of the scales.
        on_unit: Called after each unit.
    """
    references = [logits(model, sample) for sample in samples]
    mx.eval(references)
    units = []
    for stage in stages(model):
        for group in stage.groups:
            settings = {bits: make_quantization(mode, bits, group_size) for bits in BITS}
            modules = [(path, get(model, path)) for path in group]
            if not all(can_pack(m.weight.shape, settings[MEASURED_BITS]) for _, m in modules):
                continue
            loss = _loss(model, samples, references, [m for _, m in modules], settings)
            errors = {b: sum(_error(m.weight, s) for _, m in modules) for b, s in settings.items()}
            units.append(
                Unit(
                    group,
                    {b: sum(_nbytes(m, dtype, s) for _, m in modules) for b, s in settings.items()},
                    {b: loss * errors[b] / errors[MEASURED_BITS] for b in BITS},
                )
            )
            on_unit(group[0])
    return units


def allocate(units: Sequence[Unit], n_bytes: int) -> dict[str, int]:
    """Bits for each module within a budget, by greatest gain for a byte.

    Args:
        units: What :func:`measure_units` gave.
        n_bytes: Budget of their packed matrices.

    Raises:
        ValueError: If even the fewest bits do not fit.
    """
    level = dict.fromkeys(range(len(units)), 0)
    left = n_bytes - sum(unit.costs[BITS[0]] for unit in units)
    if left < 0:
        raise ValueError(
            f"the size is too small: at {BITS[0]} bits everywhere {-left / 1e6:.1f} MB are missing"
        )
    steps = [(-_gain(unit, 0), i) for i, unit in enumerate(units)]
    heapq.heapify(steps)
    while steps:
        _, i = heapq.heappop(steps)
        costs = units[i].costs
        extra = costs[BITS[level[i] + 1]] - costs[BITS[level[i]]]
        if extra > left:
            continue  # a smaller unit may still fit
        left -= extra
        level[i] += 1
        if level[i] + 1 < len(BITS):
            heapq.heappush(steps, (-_gain(units[i], level[i]), i))
    return {path: BITS[level[i]] for i, unit in enumerate(units) for path in unit.paths}


def _gain(unit: Unit, level: int) -> float:
    """Loss saved for each byte of the next step."""
    now, then = BITS[level], BITS[level + 1]
    return (unit.losses[now] - unit.losses[then]) / (unit.costs[then] - unit.costs[now])


def _loss(
    model: VoxtralRealtime,
    samples: Sequence[Sample],
    references: Sequence[mx.array],
    modules: Sequence[Any],
    settings: Mapping[int, QuantizationConfig],
) -> float:
    setting = settings[MEASURED_BITS]
    kept = [module.weight for module in modules]
    try:
        for module in modules:
            w = module.weight
            module.weight = dequantize(quantize(w, setting), setting, w.dtype)
        losses = [
            float(np.array(mean_kl(reference, logits(model, sample))))
            for sample, reference in zip(samples, references, strict=True)
        ]
    finally:
        for module, weight in zip(modules, kept, strict=True):
            module.weight = weight
    return max(sum(losses) / len(losses), 0.0)


def _error(weight: mx.array, setting: QuantizationConfig) -> float:
    """Squared error of rounding a matrix, estimated from some of its rows."""
    rows = weight[:: max(1, weight.shape[0] // ERROR_ROWS)]
    back = dequantize(quantize(rows, setting), setting, mx.float32)
    share = weight.shape[0] / rows.shape[0]
    return share * float(np.array(mx.square(back - rows.astype(mx.float32)).sum()))


def _nbytes(module: Any, dtype: mx.Dtype, setting: QuantizationConfig) -> int:
    arrays = packed_arrays(tuple(module.weight.shape), dtype, setting)
    return sum(math.prod(shape) * kind.size for shape, kind in arrays.values())
