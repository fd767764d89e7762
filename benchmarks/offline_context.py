"""Half an hour in one context of the offline model: memory and time with each way of holding it.

    python benchmarks/offline_context.py --minutes 30 --kv none 8-none 4-hadamard 4-iso

The weights are random, of the released sizes, in bfloat16; the text of such a model means nothing,
but costs what a real one does. ``--layers`` makes encoder and decoder shallower.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from voxmlx.config import (
    AudioConfig,
    DecoderConfig,
    KVCacheConfig,
    ModelConfig,
    WhisperEncoderConfig,
)
from voxmlx.generation.chat_prompt import Clip, Prompt
from voxmlx.generation.offline_text import TextDecoder, TextOptions
from voxmlx.models.voxtral import CONTEXT, Voxtral

RATE = 16000
N_TOKENS = 24


def make_model(n_layers: int | None, bits: int | None) -> Voxtral:
    """The released sizes with random weights."""
    deep = n_layers is None
    config = ModelConfig(
        "voxtral",
        AudioConfig(global_log_mel_max=None),
        WhisperEncoderConfig(1280, 32 if deep else n_layers, 20, 64, 5120),
        DecoderConfig(
            dim=3072,
            n_layers=30 if deep else n_layers,
            n_heads=32,
            n_kv_heads=8,
            head_dim=128,
            hidden_dim=8192,
            vocab_size=131072,
            sliding_window=None,
            rope_theta=1e8,
            tied_embeddings=False,
        ),
    )
    model = Voxtral(config)
    model.set_dtype(mx.bfloat16)
    if bits is not None:
        nn.quantize(model.decoder, bits=bits)
    mx.eval(model.parameters())
    return model


class Timed(TextDecoder):
    """Notes the time at each chunk of audio."""

    def _audio(self, clip: Clip, start: int) -> Iterator[mx.array]:
        self.times: list[float] = []
        for rows in super()._audio(clip, start):
            self.times.append(time.perf_counter())
            yield rows


def parse_kv(text: str) -> KVCacheConfig | None:
    bits, _, rotation = text.partition("-")
    return None if text == "none" else KVCacheConfig(int(bits), rotation)


def token_ms(times: list[float]) -> float:
    """Median milliseconds between tokens."""
    return 1e3 * float(np.median(np.diff(times)))


def run(model: Voxtral, samples: np.ndarray, name: str) -> None:
    clip = Clip(samples, model.chunk_samples, model.chunk_tokens)
    prompt = Prompt(((1, 3, 25), clip, (4, 34)))
    mx.clear_cache()
    mx.reset_peak_memory()
    weights = mx.get_active_memory()
    decoder = Timed(model, -1, CONTEXT, parse_kv(name))
    times = []
    started = time.perf_counter()
    for _ in decoder.generate(prompt, TextOptions(max_tokens=N_TOKENS, guess=False)):
        times.append(time.perf_counter())
    chunk_s = np.diff(decoder.times)
    k = max(1, len(chunk_s) // 4)
    print(
        f"{name:>11}  {len(samples) / RATE / 60:5.1f} min  {len(prompt):6d} positions  "
        f"prompt {times[0] - started:6.2f} s (encoder {decoder.encode_s:.2f} with mel)  "
        f"per position: first quarter {1e3 * chunk_s[:k].mean() / model.chunk_tokens:.3f} ms, "
        f"last {1e3 * chunk_s[-k:].mean() / model.chunk_tokens:.3f} ms  "
        f"token {token_ms(times[3:]):.2f} ms  context {decoder.nbytes / 1e9:.3f} GB  "
        f"peak over weights {(mx.get_peak_memory() - weights) / 1e9:.2f} GB",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 10, 30])
    parser.add_argument("--kv", nargs="+", default=["none"])
    parser.add_argument("--layers", type=int)
    parser.add_argument("--bits", type=int, help="quantise the decoder")
    args = parser.parse_args()
    model = make_model(args.layers, args.bits)
    print(f"{mx.default_device()}, weights {mx.get_active_memory() / 1e9:.2f} GB", flush=True)
    rng = np.random.default_rng(0)
    longest = rng.standard_normal(int(max(args.minutes) * 60 * RATE)).astype(np.float32) * 0.1
    run(model, longest[: 30 * RATE * 2], "none")  # warm up
    for name in args.kv:
        for minutes in args.minutes:
            run(model, longest[: int(minutes * 60 * RATE)], name)


if __name__ == "__main__":
    main()
