"""Every way of storing weights, keys and values, on real speech: one table.

    python benchmarks/quantization_table.py MODEL --data SET [SET ...] --calibrate AUDIO
        --output-dir results

MODEL is a realtime model in floating point, a SET is anything that 'voxmlx eval' reads, and AUDIO
is speech that is in no SET. For each way it measures the word error rate with its 95% bootstrap
interval, bytes and bits a weight, and against float32, with the float model's own tokens placed in
every recording: the divergence of the distributions, the error of the log-probabilities and how
often the likeliest token is the same.

Packed weights, keys and values run as the float32 numbers that they stand for (``twins.py``), so
the figures are those of the format and of no kernel, and a CPU can make them. Figures are the given
model's: a small one has less to spare than a large one. Rows that the folder holds already are not
made again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from benchmarks.twins import Batch, Twin, make_batches
from voxmlx.cache.quantized import make_store
from voxmlx.checkpoints.checkpoint import open_checkpoint
from voxmlx.checkpoints.load import load_model
from voxmlx.config import KVCacheConfig
from voxmlx.evaluate.bootstrap import interval
from voxmlx.evaluate.manifest import read_manifest
from voxmlx.evaluate.run import make_record
from voxmlx.kernels.hadamard import BLOCK
from voxmlx.models.fuse import prepare_for_inference
from voxmlx.models.voxtral_realtime import VoxtralRealtime
from voxmlx.quantization import hlwq, marlin
from voxmlx.quantization.modes import ROTATED, dequantize, make_quantization, quantize
from voxmlx.quantization.recipes import RECIPES, hlwq_recipe, uniform
from voxmlx.tokenizer import Tokenizer
from voxmlx_convert.calibration.distill import distill, reference_logits
from voxmlx_convert.calibration.layerwise import quantize_layerwise
from voxmlx_convert.calibration.samples import (
    Sample,
    find_recordings,
    make_samples,
    read_windows,
)
from voxmlx_convert.calibration.stages import get
from voxmlx_convert.plan import Chooser, make_plan

KV_BITS = (8, 4, 3, 2)
ROTATIONS = ("none", "planar", "iso", "hadamard")
INT4, INT4_ROTATED = make_quantization(bits=4), make_quantization(ROTATED, 4)

Row = dict[str, Any]


@dataclasses.dataclass
class Bench:
    """What all rows share."""

    folder: Path
    tokenizer: Tokenizer
    batches: list[Batch]
    calibration: list[Sample]
    epochs: int
    outputs: list[list[list[int]]] = dataclasses.field(default_factory=list)
    """Ids that the float model writes, by batch and row."""
    references: list[list[np.ndarray]] = dataclasses.field(default_factory=list)
    """Its log-probabilities in their places."""

    def fresh(self) -> VoxtralRealtime:
        """The float model."""
        return load_model(self.folder, mx.float32).model

    def settings(self, chooser: Chooser) -> dict[str, Any]:
        """Setting of each module that a recipe packs."""
        return make_plan(open_checkpoint(self.folder), mx.bfloat16, chooser).settings

    def size(self, chooser: Chooser | None) -> tuple[int, float]:
        """Bytes, and bits a weight, of a file with 16-bit floats."""
        total = make_plan(open_checkpoint(self.folder), mx.bfloat16, chooser).total
        return total.nbytes, total.bits_per_weight


def rounded(chooser: Chooser) -> Callable[[Bench], VoxtralRealtime]:
    """Weights rounded to nearest in a format of MLX, or as HLWQ."""

    def make(bench: Bench) -> VoxtralRealtime:
        model = bench.fresh()
        for path, setting in bench.settings(chooser).items():
            module = get(model, path)
            if setting.mode == hlwq.MODE:
                codes, norms = hlwq.encode(module.weight, setting.bits)
                table = mx.array(hlwq.centroids(setting.bits))
                width = module.weight.shape[1]
                module.weight = hlwq.decode(codes, norms, width, table, mx.float32)
            else:
                packed = quantize(module.weight, setting)
                module.weight = dequantize(packed, setting, mx.float32)
        return model

    return make


def marlin_weights(bench: Bench) -> VoxtralRealtime:
    """The decoder's linear matrices as Marlin's published converter rounds them."""
    model = bench.fresh()
    for path in marlin_paths(model):
        module = get(model, path)
        codes, scales = marlin.quantize(np.array(module.weight))
        steps = np.repeat(scales.astype(np.float32), marlin.GROUP_SIZE, axis=1)
        module.weight = mx.array((codes.astype(np.float32) - marlin.ZERO_POINT) * steps)
    return model


def marlin_paths(model: VoxtralRealtime) -> list[str]:
    return [
        path
        for path, module in model.named_modules()
        if path.startswith("decoder.layers.")
        and "norm" not in path
        and "weight" in module
        and module.weight.shape[-1] % BLOCK == 0
    ]


def fitted(
    setting: Any, conditioned: bool = True, learn: bool = False
) -> Callable[[Bench], VoxtralRealtime]:
    """Weights fitted to speech."""

    def make(bench: Bench) -> VoxtralRealtime:
        model = bench.fresh()
        references = reference_logits(model, bench.calibration) if learn else []
        settings = bench.settings(uniform(setting))
        quantize_layerwise(model, bench.calibration, settings, conditioned=conditioned)
        if learn:
            distill(model, bench.calibration, references, epochs=bench.epochs)
        return unpacked(model, bench.fresh(), settings)

    return make


def unpacked(
    packed: VoxtralRealtime, model: VoxtralRealtime, settings: Mapping[str, Any]
) -> VoxtralRealtime:
    """A float model with the numbers that another's packed modules stand for."""
    for path, setting in settings.items():
        arrays = {k: v for k, v in get(packed, path).items() if k in ("weight", "scales", "biases")}
        get(model, path).weight = dequantize(arrays, setting, mx.float32)
    return model


def weight_rows(
    learn: bool,
) -> dict[str, tuple[Callable[[Bench], VoxtralRealtime], Chooser | None]]:
    """Name, maker and recipe (for the size) of each way of storing weights."""
    int4 = uniform(INT4)
    recipes: dict[str, Chooser] = {
        "int8 g64": RECIPES["int8"],
        "int6 g64": RECIPES["int6"],
        "int5 g64": RECIPES["int5"],
        "int4 g32": uniform(make_quantization(bits=4, group_size=32)),
        "int4 g64": int4,
        "int4 g128": uniform(make_quantization(bits=4, group_size=128)),
        "mixed-4-6": RECIPES["mixed-4-6"],
        "mixed-4-8": RECIPES["mixed-4-8"],
        "mxfp4": RECIPES["mxfp4"],
        "nvfp4": RECIPES["nvfp4"],
        "int4 g64 rotated": int4.rotated(),
        "HLWQ-5": hlwq_recipe(5),
    }
    rows: dict[str, tuple[Callable[[Bench], VoxtralRealtime], Chooser | None]] = {
        **{name: (rounded(recipe), recipe) for name, recipe in recipes.items()},
        "Marlin int4 (decoder)": (marlin_weights, None),
        "int4 g64 GPTQ": (fitted(INT4), int4),
        "int4 g64 rotated GPTQ": (fitted(INT4_ROTATED), int4),
        "int4 g64 GPTQ, delay left out of calibration": (fitted(INT4, False), int4),
    }
    if learn:
        rows["int4 g64 GPTQ + distilled"] = (fitted(INT4, learn=True), int4)
    return rows


def measure(bench: Bench, model: VoxtralRealtime, kv: KVCacheConfig | None = None) -> Row:
    """One row of the table. The first one measured is the float model, the reference of others."""
    started = time.perf_counter()
    prepare_for_inference(model)
    twin = Twin(model, bench.tokenizer, kv)
    is_reference = not bench.references
    divergences, errors, same, wrong, words = [], [], [], [], []
    for i, batch in enumerate(bench.batches):
        audio = twin.embed(batch)
        outputs = twin.transcribe(batch, audio)
        if is_reference:
            bench.outputs.append(outputs)
            bench.references.append(list(twin.scores(batch, audio, outputs)))
        texts = [bench.tokenizer.decode(ids).strip() for ids in outputs]
        for utterance, text, seconds in zip(batch.utterances, texts, batch.seconds, strict=True):
            record = make_record(utterance, text, None, seconds)
            wrong.append(record.words.errors)
            words.append(record.words.reference)
        scores = twin.scores(batch, audio, bench.outputs[i])
        for reference, ours in zip(bench.references[i], scores, strict=True):
            divergences.append((np.exp(reference) * (reference - ours)).sum(-1))
            errors.append(np.abs(reference - ours).mean(-1))
            same.append(reference.argmax(-1) == ours.argmax(-1))
    low, high = interval(wrong, words)
    return {
        "kl": float(np.concatenate(divergences).mean()),
        "logit_error": float(np.concatenate(errors).mean()),
        "agreement": float(np.concatenate(same).mean()),
        "tokens": sum(map(len, divergences)),
        "wer": sum(wrong) / sum(words),
        "low": low,
        "high": high,
        "words": sum(words),
        "recordings": len(wrong),
        "s": time.perf_counter() - started,
    }


def open_bench(arguments: argparse.Namespace) -> Bench:
    """Data, and the float model's tokens for the calibration."""
    loaded = load_model(arguments.model, mx.float32)
    tokenizer = Tokenizer.from_file(loaded.tokenizer_path)
    utterances = [
        u
        for path in arguments.data
        for u in random.Random(0).sample(read_manifest(path), arguments.limit)
    ]
    recordings = find_recordings([Path(path) for path in arguments.calibrate])
    random.Random(0).shuffle(recordings)
    windows = read_windows(recordings, arguments.calibrate_seconds, 8.0)
    return Bench(
        Path(arguments.model),
        tokenizer,
        make_batches(loaded.model, utterances, arguments.rows),
        make_samples(loaded.model, tokenizer, windows),
        arguments.epochs,
    )


def run(bench: Bench, arguments: argparse.Namespace) -> dict[str, Row]:
    """All rows; those in ``rows.json`` already are taken from there."""
    path = arguments.output_dir / "rows.json"
    rows: dict[str, Row] = json.loads(path.read_text()) if path.exists() else {}

    def keep(name: str, make: Callable[[], Row]) -> None:
        if name not in rows and (not arguments.only or arguments.only in name):
            rows[name] = make()
            path.write_text(json.dumps(rows, indent=1))
            print(name, json.dumps(rows[name]), flush=True)

    def weights(name: str, maker: Callable[[Bench], VoxtralRealtime], recipe: Any) -> Row:
        n_bytes, bits = _marlin_size(bench) if name.startswith("Marlin") else bench.size(recipe)
        return {"bytes": n_bytes, "bits": bits, **measure(bench, maker(bench))}

    reference = {"bytes": bench.size(None)[0], "bits": 16.0, **measure(bench, bench.fresh())}
    keep("float", lambda: reference)
    for name, (maker, recipe) in weight_rows(arguments.distill).items():
        keep(name, partial(weights, name, maker, recipe))
    for bits in KV_BITS:
        for rotation in ROTATIONS:
            keep(
                f"KV {bits} bits, {rotation}",
                partial(_kv_row, bench, KVCacheConfig(bits, rotation)),
            )
    return rows


def _kv_row(bench: Bench, kv: KVCacheConfig) -> Row:
    model = bench.fresh()
    c = model.config.decoder
    held = make_store(c.n_layers, c.n_kv_heads, c.head_dim, mx.bfloat16, kv).slot_nbytes
    plain = make_store(c.n_layers, c.n_kv_heads, c.head_dim, mx.bfloat16, None).slot_nbytes
    return {"bytes": held, "bits": 16 * held / plain, **measure(bench, model, kv)}


def _marlin_size(bench: Bench) -> tuple[int, float]:
    n_bytes, bits = bench.size(None)
    n_weights = 8 * n_bytes / bits
    model = bench.fresh()
    for path in marlin_paths(model):
        size = get(model, path).weight.size
        n_bytes -= 2 * size - size // 2 - 2 * size // marlin.GROUP_SIZE
    return n_bytes, 8 * n_bytes / n_weights


def markdown(rows: Mapping[str, Row]) -> str:
    """Both tables."""
    head = "| {} | {} | bits | WER | 95% interval | KL, nats | error, nats | same token |"
    lines = [head.format("weights", "MB"), "|---" * 8 + "|"]
    for name, row in rows.items():
        if name.startswith("KV 8 bits, none"):
            lines += ["", head.format("keys and values", "bytes a position"), "|---" * 8 + "|"]
        size = row["bytes"] if name.startswith("KV") else f"{row['bytes'] / 1e6:.2f}"
        lines.append(
            f"| {name} | {size} | {row['bits']:.2f} | {row['wer']:.1%} | "
            f"{row['low']:.1%} to {row['high']:.1%} | {row['kl']:.2g} | {row['logit_error']:.2g} | "
            f"{row['agreement']:.2%} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--calibrate", nargs="+", required=True)
    parser.add_argument("--calibrate-seconds", type=float, default=60.0)
    parser.add_argument("--limit", type=int, default=8, help="recordings of each set")
    parser.add_argument("--rows", type=int, default=16, help="recordings at a time")
    parser.add_argument("--distill", action="store_true", help="also learn scales and biases")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--only", help="rows whose name has this in it")
    parser.add_argument("--output-dir", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    rows = run(open_bench(arguments), arguments)
    table = markdown(rows)
    (arguments.output_dir / "table.md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
