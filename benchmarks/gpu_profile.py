"""Steps of the release's shape on a GPU: their times, and the kernels that take them.

    python -m benchmarks.gpu_profile 1x1 1x32 64x1 64x1full encoder64x1 [--without products]

A case is rows x positions of the decoder, with ``full`` at full windows, or of the encoder. Weights
are random, int4 in groups of 64. Kernels are listed where PyTorch is there: its profiler sees those
of the whole process.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from typing import Any

import mlx.core as mx
import numpy as np

from benchmarks.gpu_runs import use_kernels
from benchmarks.gpu_steps import Steps
from voxmlx.generation.encode import BatchEncoder
from voxmlx.kernels import products, ring_attention
from voxmlx.models.fuse import prepare_for_inference
from voxmlx.models.random_model import CONFIGS, random_model
from voxmlx.models.voxtral_realtime import VoxtralRealtime

N_STEPS = 12
N_LISTED = 12


def decoder_step(model: VoxtralRealtime, case: str) -> Callable[[], mx.array]:
    """Steps of ``BxT`` or ``BxTfull``, each fed by the one before."""
    full = case.endswith("full")
    rows, positions = map(int, case.removesuffix("full").split("x"))
    steps = Steps(model, rows, positions, model.config.decoder.sliding_window if full else 300)
    cache = steps.state.cache
    if full:
        cache.reanchor_at = 10**9
        cache.offsets = [cache.capacity + 100 + 7 * row for row in range(rows)]
    mx.eval(cache.store.buffers)
    return steps.run


def encoder_step(model: VoxtralRealtime, case: str) -> Callable[[], list[mx.array]]:
    """Positions of every row, ``BxT``, with full windows."""
    n_rows, n_positions = map(int, case.split("x"))
    encoder = BatchEncoder(model, max(12, n_positions), max_rows=n_rows)
    rows = [encoder.join() for _ in range(n_rows)]
    cache = encoder._state.cache
    cache.reserve(cache.full_capacity)
    cache.offsets = [2000 + 4 * i for i in range(len(cache.offsets))]
    mx.eval(cache.store.buffers)
    n_mels = model.config.audio.n_mels
    frames = n_positions * model.config.frames_per_token
    mel = np.random.default_rng(0).standard_normal((frames, n_mels)).astype(np.float32)

    def run() -> list[mx.array]:
        rows_out = list(encoder.encode(dict.fromkeys(rows, mel)).values())
        mx.async_eval(rows_out)
        return rows_out

    return run


def times(run: Callable[[], Any]) -> dict[str, float]:
    """Milliseconds: the first step, one alone, starting one, and one among queued ones."""
    started = time.perf_counter()
    mx.eval(run())
    first = time.perf_counter() - started
    mx.eval(run())
    starting, alone = [], []
    for _ in range(5):
        mx.synchronize()
        started = time.perf_counter()
        result = run()
        starting.append(time.perf_counter() - started)
        mx.eval(result)
        alone.append(time.perf_counter() - started)
    started = time.perf_counter()
    for _ in range(N_STEPS):
        result = run()
    mx.eval(result)
    queued = (time.perf_counter() - started) / N_STEPS
    found = {"first": first, "alone": min(alone), "start": min(starting), "queued": queued}
    return {name: round(1e3 * seconds, 2) for name, seconds in found.items()}


def kernels(run: Callable[[], Any], n: int = 3) -> Iterable[str]:
    """The kernels of a step, the longest first."""
    try:
        from torch import cuda
        from torch.profiler import ProfilerActivity, profile
    except ImportError:
        return
    if not cuda.is_available():
        return
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        for _ in range(n):
            mx.eval(run())
        cuda.synchronize()
    rows = [(e.self_device_time_total / n, e.count / n, e.key) for e in seen.key_averages()]
    yield f"{sum(us for us, _, _ in rows) / 1e3:.2f} ms in {sum(c for _, c, _ in rows):.0f} kernels"
    for us, count, name in sorted(rows, reverse=True)[:N_LISTED]:
        yield f"{us / 1e3:8.3f} ms {count:6.1f} x {us / max(count, 1):8.1f} us  {name[:90]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="+")
    parser.add_argument("--size", default="4b", choices=CONFIGS)
    parser.add_argument(
        "--without", choices=("all", "products", "attention", "norms"), default=None
    )
    args = parser.parse_args()
    model = random_model(CONFIGS[args.size], bits=4)
    prepare_for_inference(model)
    use_kernels(model, args.without != "all")
    if args.without == "products":
        products.MAX_ROWS = 0
    if args.without in ("products", "norms"):
        products.NORM_ROWS = 0
    if args.without == "attention":
        ring_attention.suits = lambda *_: False
    for case in args.cases:
        mx.clear_cache()
        mx.reset_peak_memory()
        make = encoder_step if case.startswith("encoder") else decoder_step
        run = make(model, case.removeprefix("encoder"))
        found = times(run)
        print(case, found, f"peak {mx.get_peak_memory() / 1e9:.2f} GB", flush=True)
        for line in kernels(run):
            print("   ", line, flush=True)


if __name__ == "__main__":
    main()
