"""What a conversion lost and what the result needs, as one HTML page that needs nothing else."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

from voxmlx.cache.quantized import make_store
from voxmlx.checkpoints.checkpoint import Checkpoint, open_checkpoint
from voxmlx.checkpoints.load import build_model, check_tensors, describe, parameter_shapes
from voxmlx.checkpoints.names import split_layer, split_leaf
from voxmlx.checkpoints.safetensors import output_error
from voxmlx.config import KVCacheConfig, ModelConfig, QuantizationConfig
from voxmlx.evaluate.plots import Line, line_plot
from voxmlx.quantization import hlwq
from voxmlx.quantization.modes import PACKED, dequantize
from voxmlx.streaming.session import LIVE_ROWS
from voxmlx_convert.plan import Plan

REPORT_FILE = "report.html"
KV_BITS = (None, 8, 4)

_STYLE = """
body { font: 16px/1.5 sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0; font-size: 14px } svg { width: 100% }
td, th { padding: .15em .6em; text-align: right; border-bottom: 1px solid #ddd }
td:first-child, th:first-child { text-align: left }
"""


@dataclass(frozen=True)
class TensorError:
    """One packed matrix beside the one it was made from.

    Attributes:
        path: Its module.
        shape: ``(out, in)``.
        setting: How it is packed.
        nbytes: Its bytes in the file, scales included.
        relative: Norm of the difference over the norm of the source.
        largest: Largest difference of a weight over the source's standard deviation.
    """

    path: str
    shape: tuple[int, ...]
    setting: QuantizationConfig
    nbytes: int
    relative: float
    largest: float

    @property
    def bits_per_weight(self) -> float:
        """Bits in the file for each weight."""
        return 8 * self.nbytes / math.prod(self.shape)


@dataclass(frozen=True)
class MemoryUse:
    """Predicted bytes of one live session whose windows are full, activations not counted."""

    kv_bits: int | None
    weights: int
    decoder_kv: int
    encoder_kv: int

    @property
    def total(self) -> int:
        """All together."""
        return self.weights + self.decoder_kv + self.encoder_kv


def tensor_errors(source: Checkpoint, folder: Path, plan: Plan) -> list[TensorError]:
    """Compare every matrix that was packed with its source, one at a time.

    Raises:
        CheckpointError: If the result does not open.
    """
    result = open_checkpoint(folder)
    shapes = parameter_shapes(build_model(source.config))
    settings = [check_tensors(checkpoint, shapes) for checkpoint in (source, result)]
    errors = []
    for module in plan.modules:
        if module.wanted is None:
            continue
        path = split_leaf(module.name)[0]
        before, after = (
            _weight(checkpoint, path, packed.get(path))
            for checkpoint, packed in zip((source, result), settings, strict=True)
        )
        difference = after - before
        norm = float(np.array(mx.linalg.norm(before)))
        errors.append(
            TensorError(
                path,
                module.shape,
                module.wanted,
                module.group.nbytes,
                float(np.array(mx.linalg.norm(difference))) / norm if norm else 0.0,
                float(np.array(mx.abs(difference).max())) / (norm / math.sqrt(before.size) or 1.0),
            )
        )
        mx.clear_cache()
    return errors


def _weight(checkpoint: Checkpoint, path: str, setting: QuantizationConfig | None) -> mx.array:
    tensors = checkpoint.tensors
    if setting is None:
        return tensors[f"{path}.weight"].read().astype(mx.float32)
    names = [name for name in PACKED if f"{path}.{name}" in tensors]
    arrays = {name: tensors[f"{path}.{name}"].read() for name in names}
    return dequantize(arrays, setting, mx.float32)


def memory_use(config: ModelConfig, plan: Plan) -> list[MemoryUse]:
    """Predicted memory with keys and values in several widths, for a model with full windows."""
    weights = sum(
        math.prod(m.shape) * plan.dtype.size
        if m.wanted is not None and m.wanted.mode == hlwq.MODE
        else m.group.nbytes
        for m in plan.modules
    )
    encoder, decoder = config.encoder, config.decoder
    window = getattr(encoder, "sliding_window", 0)
    n_encoder = window + LIVE_ROWS * config.downsample_factor if window else 0
    n_decoder = (decoder.sliding_window or 0) + LIVE_ROWS
    found = []
    for bits in KV_BITS:
        kv = None if bits is None else KVCacheConfig(bits)
        held = [
            n * make_store(c.n_layers, c.n_kv_heads, c.head_dim, plan.dtype, kv).slot_nbytes
            for c, n in ((decoder, n_decoder), (encoder, n_encoder))
        ]
        found.append(MemoryUse(bits, weights, *held))
    return found


def render_report(name: str, config: ModelConfig, plan: Plan, errors: Sequence[TensorError]) -> str:
    """The page."""
    title = html.escape(f"Conversion of {name}")
    sizes = [
        (
            row.part,
            f"{row.n_weights:,}",
            row.settings,
            _gb(row.nbytes),
            f"{row.bits_per_weight:.2f}",
        )
        for row in (*plan.parts, plan.total)
    ]
    seconds = (config.decoder.sliding_window or 0) * config.audio.token_ms / 1000
    memory = [
        (
            "as computed" if use.kv_bits is None else f"{use.kv_bits} bits",
            *(_gb(n) for n in (use.weights, use.decoder_kv, use.encoder_kv, use.total)),
        )
        for use in memory_use(config, plan)
    ]
    rows = [
        (
            e.path,
            "×".join(map(str, e.shape)),
            describe(e.setting),
            f"{e.bits_per_weight:.2f}",
            f"{e.nbytes / 1e6:.2f}",
            f"{e.relative:.2%}",
            f"{e.largest:.2f}",
        )
        for e in errors
    ]
    parts = [
        f"<h1>{title}</h1>",
        "<h2>Size</h2>",
        _table(("part", "weights", "stored as", "GB", "bits/weight"), sizes),
        "<h2>Memory of a live session</h2>",
        f"<p>Predicted, with full windows ({seconds:.0f} s of audio), without activations.</p>",
        _table(("keys and values", "weights, GB", "decoder KV", "encoder KV", "total"), memory),
        "<h2>Error of each matrix</h2>",
        "<p>Norm of the difference over the norm of the source, by layer.</p>",
        line_plot(_lines(errors), "layer", "relative error in %"),
        _table(
            ("matrix", "shape", "stored as", "bits/weight", "MB", "error", "largest, in std"), rows
        ),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body>" + "\n".join(parts)
    ) + "</body></html>\n"


def write_report(folder: Path, name: str, source: Checkpoint, plan: Plan) -> None:
    """Write the page of a finished conversion into its folder.

    Raises:
        CheckpointError: If the result does not open.
        OutputError: If the disk is full or fails.
    """
    path = folder / REPORT_FILE
    text = render_report(name, source.config, plan, tensor_errors(source, folder, plan))
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise output_error(path, error) from error


def _lines(errors: Sequence[TensorError]) -> list[Line]:
    """Mean error of each layer of encoder and decoder, in percent."""
    found: dict[str, dict[int, list[float]]] = {}
    for error in errors:
        template, number = split_layer(error.path)
        if number:
            part = template.partition(".")[0]
            found.setdefault(part, {}).setdefault(int(number), []).append(100 * error.relative)
    return [_line(part, layers) for part, layers in found.items()]


def _line(part: str, layers: Mapping[int, Sequence[float]]) -> Line:
    numbers = sorted(layers)
    return Line(
        part,
        numbers,
        [float(np.mean(layers[n])) for n in numbers],
        [min(layers[n]) for n in numbers],
        [max(layers[n]) for n in numbers],
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def cells(tag: str, row: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(x)}</{tag}>" for x in row) + "</tr>"

    return f"<table>{cells('th', head)}{''.join(cells('td', row) for row in rows)}</table>"


def _gb(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.3f}"
