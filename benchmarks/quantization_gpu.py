"""File size, load time, peak memory and step time of every weight format at the release's size.

    python -m benchmarks.quantization_gpu --folder SCRATCH --output rows.json
    python -m benchmarks.quantization_gpu --parts kv --folder SCRATCH --output rows.json
    python -m benchmarks.quantization_gpu --size tiny --folder SCRATCH --output rows.json

Weights are random, drawn as packed words, so texts mean nothing and guesses never hold: a step is
one position, 80 ms of audio, of the decoder. Every format is written, loaded from the file (out of
memory, if SCRATCH is there, so without a disk's own time) and timed; with compressed keys and
values the decoder's ring is full. Needs 9 GB in SCRATCH, and memory for one network. Rows that the
output holds are not made again, so many short runs make one table. A format that cannot be measured
is noted with the reason, and the others follow.

Fitted int4 (GPTQ, distilled) has the layout of int4. HLWQ is unpacked to bfloat16 by loading.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten

from benchmarks.make_random_4b import make_params
from voxmlx.checkpoints.load import load_model, parameter_shapes
from voxmlx.checkpoints.marlin import MARLIN_REALTIME
from voxmlx.checkpoints.save import save_model
from voxmlx.config import KV_BITS, KV_ROTATIONS, KVCacheConfig
from voxmlx.generation.batch import MAX_STEP
from voxmlx.generation.step import DecodeState, step_program
from voxmlx.models.fuse import prepare_for_inference
from voxmlx.models.random_model import CONFIGS, random_model
from voxmlx.models.voxtral_realtime import VoxtralRealtime
from voxmlx.quantization.modes import make_quantization
from voxmlx.quantization.recipes import RECIPES, Recipe, hlwq_recipe, uniform
from voxmlx.quantization.rotated import quantize_modules
from voxmlx_convert.convert import Options, convert

INT4 = uniform(make_quantization(bits=4))
FORMATS: dict[str, Recipe | None] = {
    "int4 g64": INT4,
    "int8 g64": RECIPES["int8"],
    "int4 g64 rotated": INT4.rotated(),
    "mxfp4": RECIPES["mxfp4"],
    "nvfp4": RECIPES["nvfp4"],
    "mixed-4-6": RECIPES["mixed-4-6"],
    "int6 g64": RECIPES["int6"],
    "int4 g128": uniform(make_quantization(bits=4, group_size=128)),
    "int4 g32": uniform(make_quantization(bits=4, group_size=32)),
    "int5 g64": RECIPES["int5"],
    "mixed-4-8": RECIPES["mixed-4-8"],
    "Marlin int4": None,
    "bfloat16": None,
    "HLWQ-5": hlwq_recipe(5),
}
KV = [None, *(KVCacheConfig(bits, r) for bits in sorted(KV_BITS)[::-1] for r in KV_ROTATIONS)]
N_DELAY = 6
SCALES = {"mxfp4": 119, "nvfp4": 8}
"""Bytes that stand for about 1 / 100, by mode."""

Row = dict[str, Any]


def make_model(size: str, recipe: Recipe | None) -> VoxtralRealtime:
    """A network of random weights in a format; nothing is ever packed."""
    model = VoxtralRealtime(CONFIGS[size])
    paths = {
        name.removesuffix(".weight"): shape
        for name, shape in parameter_shapes(model).items()
        if name.endswith(".weight")
    }
    settings = {} if recipe is None else {path: recipe(path, s) for path, s in paths.items()}
    packed = {path: s for path, s in settings.items() if s is not None}
    quantize_modules(model, packed)
    parameters: Any = tree_flatten(model.parameters())
    for name, x in parameters:
        setting = packed.get(name.rpartition(".")[0])
        if x.dtype == mx.uint32:
            array = noise(x.shape, mx.uint32)
        elif x.dtype == mx.uint8 and setting is not None:
            array = mx.full(x.shape, SCALES[setting.mode], mx.uint8)
        elif setting is not None and not name.endswith(".bias"):
            scale = 0.07 / 2**setting.bits
            centre = -scale * (2**setting.bits - 1) / 2
            array = mx.full(x.shape, scale if name.endswith("scales") else centre, mx.bfloat16)
        elif name.endswith("norm.weight"):
            array = mx.ones(x.shape, mx.bfloat16)
        else:
            array = noise(x.shape)
        mx.eval(array)
        model.update(tree_unflatten([(name, array)]))
    return model


def noise(shape: tuple[int, ...], dtype: mx.Dtype = mx.bfloat16) -> mx.array:
    """Normal numbers or any words. They repeat: drawing all takes a CPU minutes."""
    n = math.prod(shape)
    some = (min(n, 1 << 20),)
    if dtype == mx.bfloat16:
        drawn = 0.02 * mx.random.normal(some, dtype)
    else:
        halves = mx.random.randint(0, 1 << 16, (2, *some), dtype=mx.uint32)
        drawn = (halves[0] << 16 | halves[1]).view(dtype)
    return mx.tile(drawn, -(-n // drawn.size))[:n].reshape(shape)


def write_format(size: str, name: str, folder: Path) -> None:
    """A checkpoint of random weights in a format."""
    if name == "Marlin int4":
        write_marlin(size, folder)
        return
    if name != "HLWQ-5":
        save_model(make_model(size, FORMATS[name]), CONFIGS[size], folder)
        return
    source = folder.with_name("bfloat16")
    if not source.exists():
        write_format(size, "bfloat16", source)
    (source / "tekken.json").write_text("{}")  # copied, never read
    mx.clear_cache()
    convert(str(source), folder, Options(recipe=FORMATS[name], overwrite=True))
    shutil.rmtree(source)


def write_marlin(size: str, folder: Path) -> None:
    """Random tiles in the published layout; everything else is bfloat16."""
    config = CONFIGS[size]
    folder.mkdir()
    arrays: dict[str, mx.array] = {}
    for name, shape in parameter_shapes(VoxtralRealtime(config)).items():
        path = MARLIN_REALTIME.external_name(name).removesuffix(".weight")
        kind = name.split(".")[-3:-1]
        if name.startswith("decoder.layers") and kind[0] in ("attention", "mlp"):
            n, k = shape
            tiles = noise((k // 16, 2 * n), mx.int32)
            arrays |= {f"{path}.B": tiles, f"{path}.s": mx.full((k // 128, n), 0.005, mx.float16)}
            continue
        if len(shape) == 3:
            shape = (shape[0], shape[2], shape[1])
        floats = noise(shape)
        norm = name.endswith("norm.weight")
        arrays[MARLIN_REALTIME.external_name(name)] = mx.ones_like(floats) if norm else floats
    mx.save_safetensors(str(folder / "consolidated.safetensors"), arrays)
    (folder / "params.json").write_text(json.dumps(make_params(config)))


def measure_format(size: str, name: str, scratch: Path, n_steps: int) -> Row:
    """One row of the table of weights."""
    folder = scratch / name.replace(" ", "_")
    started = time.perf_counter()
    write_format(size, name, folder)
    gc.collect()
    mx.clear_cache()
    write_s = time.perf_counter() - started
    print(f"{name}: written in {write_s:.1f} s", flush=True)
    n_bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    mx.reset_peak_memory()
    started, spent = time.perf_counter(), time.process_time()
    model = load_model(folder).model
    load_s, load_cpu_s = time.perf_counter() - started, time.process_time() - spent
    load_peak = mx.get_peak_memory()
    print(f"{name}: loaded in {load_s:.1f} s", flush=True)
    shutil.rmtree(folder)
    row = {
        "format": name,
        "file_bytes": n_bytes,
        "load_s": load_s,
        "load_processor_s": load_cpu_s,
        "load_peak_bytes": load_peak,
        "write_s": write_s,
    }
    if not n_steps:
        return row
    prepare_for_inference(model)
    mx.clear_cache()
    mx.reset_peak_memory()
    first_s, step_s = time_steps(model, None, n_steps, full=False)
    steps = {"decoder_step_ms": 1000 * step_s, "first_steps_s": first_s}
    return {**row, **steps, "run_peak_bytes": mx.get_peak_memory()}


def measure_kv(model: VoxtralRealtime, kv: KVCacheConfig | None, n_steps: int) -> Row:
    """One row of the table of keys and values, at a full window."""
    cache = full_cache(model, kv)
    mx.eval(cache.store.buffers)
    row = {
        "kv": "as computed" if kv is None else f"{kv.bits} bits, {kv.rotation}",
        "computed_bytes_a_position": cache.store.slot_nbytes,
        "held_bytes_a_position": cache.nbytes / cache.capacity,
        "held_bytes": cache.nbytes,
    }
    del cache
    if not n_steps:
        return row
    first_s, step_s = time_steps(model, kv, n_steps, full=True)
    return {**row, "decoder_step_ms": 1000 * step_s, "first_steps_s": first_s}


def full_cache(model: VoxtralRealtime, kv: KVCacheConfig | None) -> Any:
    """A cache whose window is full of zeros."""
    cache = model.decoder.make_cache(MAX_STEP, kv=kv)
    cache.offsets = [cache.full_capacity]
    cache.place(1)
    return cache


def time_steps(
    model: VoxtralRealtime, kv: KVCacheConfig | None, n_steps: int, full: bool
) -> tuple[float, float]:
    """Seconds of the first five steps, and of a later one in the shortest of three runs."""
    cache = full_cache(model, kv) if full else model.decoder.make_cache(MAX_STEP, kv=kv)
    state = DecodeState(cache, model.decoder.conditioning(N_DELAY))
    audio = mx.zeros((1, 1, model.config.decoder.dim), model.dtype)
    step = step_program(model)

    def run(n: int) -> float:
        token = mx.array([[32]], dtype=mx.int32)
        started = time.perf_counter()
        for _ in range(n):
            token, _ = step.greedy(state, token, audio)
            mx.async_eval(token)
        mx.eval(token)
        return time.perf_counter() - started

    first = run(5)
    print(f"first steps in {first:.1f} s", flush=True)
    return first, min(run(n_steps) for _ in range(3)) / n_steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=CONFIGS, default="4b")
    parser.add_argument("--folder", type=Path, required=True, help="for files, deleted again")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--parts", nargs="+", choices=("weights", "kv"), default=["weights", "kv"])
    parser.add_argument("--seconds", type=float, default=1e9, help="no row begins after this")
    parser.add_argument("--steps", type=int, default=30, help="0 times none")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    shutil.rmtree(arguments.folder, ignore_errors=True)
    arguments.folder.mkdir(parents=True)
    rows: dict[str, Row] = {}
    if arguments.output.exists():
        rows = json.loads(arguments.output.read_text())
    started = time.perf_counter()

    def keep(name: str, measure: Callable[[], Row]) -> None:
        if name in rows or time.perf_counter() - started > arguments.seconds:
            return
        try:
            rows[name] = measure()
        except Exception as error:  # whatever a device lacks
            rows[name] = {"failed": name, "error": f"{type(error).__name__}: {error}"[:300]}
        arguments.output.write_text(json.dumps(rows, indent=1))
        print(json.dumps(rows[name]), flush=True)
        gc.collect()
        mx.clear_cache()

    size = arguments.size
    if "weights" in arguments.parts:
        for name in arguments.formats:
            measure = partial(measure_format, size, name, arguments.folder, arguments.steps)
            keep(name, measure)
    if "kv" in arguments.parts:
        model = VoxtralRealtime(CONFIGS[size])
        model.set_dtype(mx.bfloat16)
        if arguments.steps:
            model = random_model(CONFIGS[size], bits=4)
            prepare_for_inference(model)
        for kv in KV:
            keep(f"KV {kv}", partial(measure_kv, model, kv, arguments.steps))
    shutil.rmtree(arguments.folder)


if __name__ == "__main__":
    main()
