"""Half an hour in one context of the offline model: memory and time with each way of holding it.

    python benchmarks/offline_context.py --minutes 30 --kv none 8-none 4-hadamard 4-iso
    python benchmarks/offline_context.py --decoder-only --kv none 4-hadamard
    python benchmarks/offline_context.py --decoder-only --layers 2 --float32 --jump

The weights are random, of the released sizes, in bfloat16; the text of such a model means nothing,
but costs what a real one does. ``--layers`` makes encoder and decoder shallower. With
``--decoder-only`` random embeddings take the place of encoded audio, and one context grows to the
longest length, with tokens decoded and taken back at each length on the way; with ``--jump`` only
the part of the prompt that reaches a length is computed, after zeros.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
from voxmlx.generation.offline_text import PREFILL_POSITIONS, TextDecoder, TextOptions
from voxmlx.models.fuse import prepare_for_inference
from voxmlx.models.voxtral import CONTEXT, Voxtral

RATE = 16000
N_TOKENS = 24


PER_MINUTE = 750
"""Positions of a minute of audio."""


def make_model(
    n_layers: int | None, bits: int | None, dtype: mx.Dtype = mx.bfloat16, vocab: int = 131072
) -> Voxtral:
    """The released sizes with random weights; fewer layers or ids if asked."""
    config = ModelConfig(
        "voxtral",
        AudioConfig(global_log_mel_max=None),
        WhisperEncoderConfig(1280, 32 if n_layers is None else n_layers, 20, 64, 5120),
        DecoderConfig(
            dim=3072,
            n_layers=30 if n_layers is None else n_layers,
            n_heads=32,
            n_kv_heads=8,
            head_dim=128,
            hidden_dim=8192,
            vocab_size=vocab,
            sliding_window=None,
            rope_theta=1e8,
            tied_embeddings=False,
        ),
    )
    model = Voxtral(config)
    model.set_dtype(dtype)
    if bits is not None:
        nn.quantize(model.decoder, bits=bits)
    mx.eval(model.parameters())
    prepare_for_inference(model)
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


def grow(
    model: Voxtral, minutes: list[float], name: str, jump: bool = False
) -> Iterator[dict[str, Any]]:
    """Let one context grow with random embeddings; a row for each length on the way."""
    mx.clear_cache()
    mx.reset_peak_memory()
    weights = mx.get_active_memory()
    total = int(max(minutes) * PER_MINUTE)
    cache = model.decoder.make_cache(
        PREFILL_POSITIONS, window=total + PREFILL_POSITIONS, kv=parse_kv(name)
    )
    cache.reserve(total)
    rows = mx.random.normal((1, PREFILL_POSITIONS, model.config.decoder.dim)).astype(model.dtype)
    mx.eval(rows, cache.store.buffers)
    spent, n = 0.0, 0
    for minute in sorted(minutes):
        if jump:
            skipped = max(0, int(minute * PER_MINUTE) - PREFILL_POSITIONS - n)
            cache.advance(skipped)
            n += skipped
        while n < int(minute * PER_MINUTE):
            k = min(PREFILL_POSITIONS, int(minute * PER_MINUTE) - n)
            started = time.perf_counter()
            mx.eval(model(rows[:, :k], cache)[:, -1:])
            last, n = time.perf_counter() - started, n + k
            spent += last
        yield {
            "kv": name,
            "minutes": minute,
            "positions": n,
            "prompt_s": spent,
            "last_part_ms_a_position": 1e3 * last / k,
            "token_ms": decode(model, cache),
            "context_gb": cache.nbytes / 1e9,
            "peak_over_weights_gb": (mx.get_peak_memory() - weights) / 1e9,
        }


def decode(model: Voxtral, cache: Any) -> float:
    """Median milliseconds of a token, one after the other; they are taken back."""
    token, times = mx.array([[5]]), []
    for _ in range(N_TOKENS):
        token = model.decoder.logits(model(model.decoder.embed_tokens(token), cache)).argmax(-1)
        mx.eval(token)
        times.append(time.perf_counter())
    cache.rewind(N_TOKENS)
    return token_ms(times[3:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 10, 30])
    parser.add_argument("--kv", nargs="+", default=["none"])
    parser.add_argument("--layers", type=int)
    parser.add_argument("--bits", type=int, help="quantise the decoder")
    parser.add_argument("--vocab", type=int, default=131072, help="ids, fewer for small machines")
    parser.add_argument("--float32", action="store_true", help="for CPUs")
    parser.add_argument("--decoder-only", action="store_true")
    parser.add_argument("--jump", action="store_true", help="compute the ends only")
    parser.add_argument("--output", type=Path, help="JSON of --decoder-only")
    args = parser.parse_args()
    dtype = mx.float32 if args.float32 else mx.bfloat16
    model = make_model(args.layers, args.bits, dtype, args.vocab)
    print(f"{mx.default_device()}, weights {mx.get_active_memory() / 1e9:.2f} GB", flush=True)
    rows: list[dict[str, Any]] = []
    if args.decoder_only:
        for name in args.kv:
            for row in grow(model, args.minutes, name, args.jump):
                rows.append(row)
                print(json.dumps(row), flush=True)
                if args.output is not None:
                    args.output.write_text(json.dumps(rows, indent=1))
        return
    rng = np.random.default_rng(0)
    longest = rng.standard_normal(int(max(args.minutes) * 60 * RATE)).astype(np.float32) * 0.1
    run(model, longest[: 30 * RATE * 2], "none")  # warm up
    for name in args.kv:
        for minutes in args.minutes:
            run(model, longest[: int(minutes * 60 * RATE)], name)


if __name__ == "__main__":
    main()
