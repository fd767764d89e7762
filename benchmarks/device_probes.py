"""Every packed, rotated or coded operation on this device against the CPU, each on its own.

    python benchmarks/device_probes.py [--output probes.json]

MLX lacks some kernels on some devices, and others have never run there. A line for each operation
says how far its bfloat16 result is from the CPU's in float32, relative to its largest number, or
what was raised. (In bfloat16 the CPU itself is off by up to 0.1: it adds up in few bits.)
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from voxmlx.cache.attention import attend_causal
from voxmlx.cache.codecs import AffineCodec, CodebookCodec, VectorCodec
from voxmlx.cache.store import rotate
from voxmlx.config import KVCacheConfig, QuantizationConfig
from voxmlx.generation.step import DecodeState, decode_step, step_program
from voxmlx.kernels.hadamard import block_hadamard
from voxmlx.kernels.launch import on_cuda
from voxmlx.models.fuse import prepare_for_inference
from voxmlx.models.random_model import TINY, random_model
from voxmlx.quantization import hlwq
from voxmlx.quantization.modes import (
    MODES,
    dequantize,
    make_quantization,
    native_arguments,
    quantize,
)
from voxmlx.quantization.rotated import quantize_modules

Probe = Callable[[mx.Dtype], mx.array]
TOLERANCE = 0.03
"""Of the largest number: bfloat16 rounds to 0.004, a result has passed a few roundings."""


def draw(dtype: mx.Dtype, *shape: int, seed: int = 0) -> mx.array:
    """Normal numbers that bfloat16 holds, the same on every device."""
    rng = np.random.default_rng([seed, *shape])
    numbers = mx.array(rng.standard_normal(shape).astype(np.float32))
    return numbers.astype(mx.bfloat16).astype(dtype)


def packed_product(setting: QuantizationConfig, rows: int, dtype: mx.Dtype) -> mx.array:
    """A packed matrix multiplied."""
    with mx.stream(mx.cpu):  # devices round to codes differently
        arrays = quantize(draw(mx.bfloat16, 512, 256, seed=1), setting)
    x = draw(dtype, rows, 256)
    if dtype == mx.float32:
        return x @ dequantize(arrays, setting, dtype).T
    form = native_arguments(setting)
    weight, scales, biases = arrays["weight"], arrays["scales"], arrays.get("biases")
    return mx.quantized_matmul(x, weight, scales, biases, transpose=True, **form)


def rotated_layer(dtype: mx.Dtype) -> mx.array:
    """A layer whose packed matrix is rotated."""
    layer = nn.Linear(256, 512, bias=False)
    layer.weight = draw(mx.bfloat16, 512, 256, seed=1)
    holder = nn.Sequential(layer)
    with mx.stream(mx.cpu):
        quantize_modules(holder, {"layers.0": make_quantization("affine_hadamard", 4)})
        mx.eval(holder.parameters())
    holder.set_dtype(dtype)
    return holder(draw(dtype, 3, 256))


def coded_products(codec: VectorCodec, dtype: mx.Dtype) -> mx.array:
    """Scores of stored keys, and a mix of stored values, of 2 heads and 700 slots."""
    with mx.stream(mx.cpu):
        stored = codec.encode(draw(mx.bfloat16, 1, 2, 700, 128, seed=2))
        mx.eval(stored)
    stored = {k: x.astype(dtype) if x.dtype == mx.bfloat16 else x for k, x in stored.items()}
    scores = codec.scores(draw(dtype, 1, 2, 4, 128), stored)
    weights = mx.softmax(scores * 0.1, axis=-1)
    mixed = codec.mix(weights, stored)
    return mx.concatenate([scores, 50 * mixed], axis=-1)


def encoded(codec: VectorCodec, dtype: mx.Dtype) -> mx.array:
    """How far vectors are from what is stored of them: the root mean square of each."""
    x = draw(mx.bfloat16, 1, 2, 700, 128, seed=2)
    stored = codec.encode(x)
    stored = {k: y.astype(mx.float32) if y.dtype == mx.bfloat16 else y for k, y in stored.items()}
    apart = codec.decode(stored, mx.float32) - x.astype(mx.float32)
    return mx.sqrt(mx.mean(mx.square(apart), axis=(2, 3)))


def keys_turned(shift: list[int], dtype: mx.Dtype) -> mx.array:
    """Stored keys of two rows moved by some positions."""
    return rotate(draw(dtype, 2, 2, 40, 128, seed=6), mx.array(shift, dtype=mx.int32), 1e6)


def hlwq_weights(dtype: mx.Dtype) -> mx.array:
    """Encoded and decoded again."""
    codes, norms = hlwq.encode(draw(mx.bfloat16, 64, 256, seed=3), 5)
    return hlwq.decode(codes, norms, 256, mx.array(hlwq.centroids(5)), dtype)


def long_context(n_queries: int, dtype: mx.Dtype) -> mx.array:
    """The newest positions of a context of 3000."""
    k, v = draw(dtype, 1, 2, 3000, 128, seed=4), draw(dtype, 1, 2, 3000, 128, seed=5)
    return attend_causal(draw(dtype, 1, 8, n_queries, 128), k, v, 0.1)


def steps(kv: KVCacheConfig | None, dtype: mx.Dtype) -> mx.array:
    """Logits of a network's steps beyond its window, keys and values held in some way; float32."""
    mx.random.seed(0)
    with mx.stream(mx.cpu):
        model = random_model(TINY, mx.float32)
        mx.eval(model.parameters())
    prepare_for_inference(model)
    state = DecodeState(model.decoder.make_cache(50, kv=kv), model.decoder.conditioning(6))
    audio = draw(mx.float32, 1, 250, 256) * 0.1
    tokens = mx.array(np.random.default_rng(0).integers(0, 2000, (1, 250)))
    for start in range(0, 240, 40):
        part = slice(start, start + 40)
        logits = decode_step(model, state, tokens[:, part], audio[:, part], 1)
    mx.eval(logits)
    for k in range(240, 250):
        logits = step_program(model)(state, tokens[:, k : k + 1], audio[:, k : k + 1], 1)
        mx.eval(logits)
    return logits


def probes() -> Iterator[tuple[str, Probe]]:
    """Name and operation of each probe; the ones in use most come first."""
    yield "hadamard rotation", lambda dtype: block_hadamard(draw(dtype, 5, 1024))
    for bits in (4, 8, 3, 2):
        yield f"affine cache, {bits} bits", partial(coded_products, AffineCodec(128, bits))
        yield f"codebook cache, {bits} bits", partial(coded_products, CodebookCodec(128, bits))
        yield f"affine codes, {bits} bits", partial(encoded, AffineCodec(128, bits))
        yield f"codebook codes, {bits} bits", partial(encoded, CodebookCodec(128, bits))
    for n in (1, 8, 48):
        yield f"causal attention, {n} queries", partial(long_context, n)
    for shift in ([5, 9000], [-5, 0], [-8448, -16896]):
        yield f"keys turned by {shift}", partial(keys_turned, shift)
    settings = [
        make_quantization("affine", bits, size)
        for bits, size in ((4, 64), (8, 64), (6, 64), (5, 64), (3, 64), (2, 64), (4, 32), (4, 128))
    ]
    settings += [make_quantization(mode) for mode in MODES if mode.startswith(("mx", "nv"))]
    for s in settings:
        for rows in (1, 8, 64):
            name = f"{s.mode} {s.bits} bits, groups of {s.group_size}, {rows} rows"
            yield name, partial(packed_product, s, rows)
    yield "rotated layer", rotated_layer
    yield "HLWQ", hlwq_weights
    kinds = [(4, "hadamard"), (4, "iso"), (8, "none"), (3, "planar"), (2, "hadamard")]
    for kv in (None, *(KVCacheConfig(bits, rotation) for bits, rotation in kinds)):
        yield f"steps, {kv}", partial(steps, kv)


def run(probe: Probe) -> dict[str, float | str]:
    """Result of one probe."""
    started = time.perf_counter()
    try:
        ours = np.array(probe(mx.bfloat16).astype(mx.float32))
        seconds = time.perf_counter() - started
        device = mx.default_device()
        mx.set_default_device(mx.cpu)
        on_cuda.cache_clear()
        try:
            reference = np.array(probe(mx.float32))
        finally:
            mx.set_default_device(device)
            on_cuda.cache_clear()
    except Exception as error:  # whatever a device lacks
        return {"error": f"{type(error).__name__}: {error}"[:300]}
    return {"off": float(np.abs(ours - reference).max() / np.abs(reference).max()), "s": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path)
    parser.add_argument("--seconds", type=float, default=1e9, help="no probe begins after this")
    arguments = parser.parse_args()
    started = time.perf_counter()
    results: dict[str, dict[str, float | str]] = {}
    for name, probe in probes():
        if time.perf_counter() - started > arguments.seconds:
            print(f"stopped after {len(results)} probes: no time left")
            break
        result = results[name] = run(probe)
        good = float(result.get("off", 1)) < TOLERANCE
        print(f"{'ok ' if good else 'BAD'}  {name:45s} {result}", flush=True)
        if arguments.output is not None:
            arguments.output.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
