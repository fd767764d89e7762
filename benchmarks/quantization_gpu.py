"""File size, load time, peak memory and step time of every weight format at the release's size.

    python benchmarks/quantization_gpu.py --folder SCRATCH --output results.json
    python benchmarks/quantization_gpu.py --parts kv --folder SCRATCH --output results.json
    python benchmarks/quantization_gpu.py --size tiny --folder SCRATCH --output results.json

Weights are random, so texts mean nothing and guesses never hold: a step is one position, 80 ms of
audio. Every format is packed, written, loaded from the file (from the page cache, so without the
disk's own time) and timed; with compressed keys and values the decoder's ring is full. Needs 12 GB
of disk, and memory for one bfloat16 network (8.9 GB) besides what it measures. A format that cannot
be measured is noted with the reason, and the others follow.
"""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx

from voxmlx.checkpoints.load import load_model, parameter_shapes
from voxmlx.checkpoints.save import save_model
from voxmlx.config import KVCacheConfig
from voxmlx.generation.batch import MAX_STEP
from voxmlx.generation.step import DecodeState, step_program
from voxmlx.models.fuse import prepare_for_inference
from voxmlx.models.random_model import CONFIGS, random_model
from voxmlx.models.voxtral_realtime import VoxtralRealtime
from voxmlx.quantization.modes import make_quantization
from voxmlx.quantization.recipes import RECIPES, hlwq_recipe, uniform
from voxmlx.quantization.rotated import quantize_modules
from voxmlx_convert.convert import Options, convert
from voxmlx_convert.plan import Chooser

INT4 = uniform(make_quantization(bits=4))
FORMATS: dict[str, Chooser | None] = {
    "int4 g64": INT4,
    "bfloat16": None,
    "int4 g64 rotated": INT4.rotated(),
    "int8 g64": RECIPES["int8"],
    "mxfp4": RECIPES["mxfp4"],
    "nvfp4": RECIPES["nvfp4"],
    "mixed-4-6": RECIPES["mixed-4-6"],
    "int6 g64": RECIPES["int6"],
    "int4 g128": uniform(make_quantization(bits=4, group_size=128)),
    "int5 g64": RECIPES["int5"],
    "HLWQ-5": hlwq_recipe(5),
}
KV = [None, *(KVCacheConfig(bits, r) for bits in (8, 4) for r in ("none", "hadamard", "iso"))]
N_DELAY = 6

Row = dict[str, Any]


def write_format(size: str, recipe: Chooser | None, folder: Path) -> None:
    """A checkpoint of random weights in a format."""
    config = CONFIGS[size]
    model = random_model(config)
    coded = recipe is not None and recipe == FORMATS["HLWQ-5"]
    if recipe is not None and not coded:
        shapes = parameter_shapes(model)
        paths = {n.removesuffix(".weight"): s for n, s in shapes.items() if n.endswith(".weight")}
        settings = {path: recipe(path, shape) for path, shape in paths.items()}
        quantize_modules(model, {path: s for path, s in settings.items() if s is not None})
    save_model(model, config, folder)
    del model
    gc.collect()
    mx.clear_cache()
    if coded:
        (folder / "tekken.json").write_text("{}")  # copied, never read
        coded_folder = folder.with_name(folder.name + "-coded")
        convert(str(folder), coded_folder, Options(recipe=recipe))
        shutil.rmtree(folder)
        coded_folder.rename(folder)


def measure_format(size: str, name: str, scratch: Path, n_steps: int) -> Row:
    """One row of the table of weights."""
    folder = scratch / "model"
    shutil.rmtree(folder, ignore_errors=True)
    write_format(size, FORMATS[name], folder)
    n_bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    mx.clear_cache()
    mx.reset_peak_memory()
    started = time.perf_counter()
    model = load_model(folder).model
    load_s = time.perf_counter() - started
    load_peak = mx.get_peak_memory()
    prepare_for_inference(model)
    mx.clear_cache()
    mx.reset_peak_memory()
    step_s = time_steps(model, None, n_steps, full=False)
    encode_s = time_encoder(model, n_steps)
    peak = mx.get_peak_memory()
    shutil.rmtree(folder)
    return {
        "format": name,
        "file_bytes": n_bytes,
        "load_s": load_s,
        "load_peak_bytes": load_peak,
        "run_peak_bytes": peak,
        "decoder_step_ms": 1000 * step_s,
        "encoder_step_ms": 1000 * encode_s,
    }


def measure_kv(model: VoxtralRealtime, kv: KVCacheConfig | None, n_steps: int) -> Row:
    """One row of the table of keys and values, at a full window."""
    cache = full_cache(model, kv)
    step_s = time_steps(model, kv, n_steps, full=True)
    return {
        "kv": "as computed" if kv is None else f"{kv.bits} bits, {kv.rotation}",
        "computed_bytes_a_position": cache.store.slot_nbytes,
        "held_bytes_a_position": cache.nbytes / cache.capacity,
        "held_bytes": cache.nbytes,
        "decoder_step_ms": 1000 * step_s,
    }


def full_cache(model: VoxtralRealtime, kv: KVCacheConfig | None) -> Any:
    """A cache whose window is full of zeros."""
    cache = model.decoder.make_cache(MAX_STEP, kv=kv)
    cache.offsets = [cache.full_capacity]
    cache.place(1)
    return cache


def time_steps(model: VoxtralRealtime, kv: KVCacheConfig | None, n_steps: int, full: bool) -> float:
    """Seconds of a decoder step of one position, the shortest of three runs."""
    cache = full_cache(model, kv) if full else model.decoder.make_cache(MAX_STEP, kv=kv)
    state = DecodeState(cache, model.decoder.conditioning(N_DELAY))
    audio = mx.zeros((1, 1, model.config.decoder.dim), model.dtype)
    step = step_program(model)

    def run() -> None:
        token = mx.array([[32]], dtype=mx.int32)
        for _ in range(n_steps):
            token, _ = step.greedy(state, token, audio)
            mx.async_eval(token)
        mx.eval(token)

    return _shortest(run) / n_steps


def time_encoder(model: VoxtralRealtime, n_steps: int) -> float:
    """Seconds for the embedding of one position of a stream, the shortest of three runs."""
    config = model.config
    mel = mx.zeros((1, config.frames_per_token, config.audio.n_mels))
    state = model.encoder.make_state(config.downsample_factor)

    def run() -> None:
        for _ in range(n_steps):
            mx.async_eval(model.embed_audio(mel, state))
        mx.eval(model.embed_audio(mel, state))

    return _shortest(run) / (n_steps + 1)


def _shortest(run: Callable[[], None]) -> float:
    run()  # first uses compile and allocate
    times = []
    for _ in range(3):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=CONFIGS, default="4b")
    parser.add_argument("--folder", type=Path, required=True, help="for files, deleted again")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--parts", nargs="+", choices=("weights", "kv"), default=["kv", "weights"])
    parser.add_argument("--seconds", type=float, default=1e9, help="no row begins after this")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[Row]] = {"weights": [], "kv": []}
    started = time.perf_counter()

    def keep(table: str, name: str, measure: Callable[[], Row]) -> None:
        if time.perf_counter() - started > arguments.seconds:
            return
        try:
            row = measure()
        except Exception as error:  # whatever a device lacks
            row = {"failed": name, "error": f"{type(error).__name__}: {error}"[:300]}
        rows[table].append(row)
        arguments.output.write_text(json.dumps(rows, indent=1))
        print(json.dumps(row), flush=True)
        gc.collect()
        mx.clear_cache()

    size = arguments.size
    if "kv" in arguments.parts:
        model = random_model(CONFIGS[size], bits=4)
        prepare_for_inference(model)
        for kv in KV:
            keep("kv", str(kv), partial(measure_kv, model, kv, arguments.steps))
        del model
    if "weights" in arguments.parts:
        for name in arguments.formats:
            measure = partial(measure_format, size, name, arguments.folder, arguments.steps)
            keep("weights", name, measure)


if __name__ == "__main__":
    main()
