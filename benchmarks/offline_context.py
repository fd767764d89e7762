"""Half an hour in one context of the offline model: memory and time with each way of holding it.

    python benchmarks/offline_context.py --kv none 8-none 4-hadamard 4-iso
    python benchmarks/offline_context.py --decoder-only --minutes 1 10 30
    python benchmarks/offline_context.py --layers 2 --float32 --vocab 4096 --processor-time

Noise takes the place of speech, and random weights of the released sizes that of trained ones:
texts mean nothing, but cost what real ones do. The audio is encoded in chunks of 30 s, once for all
ways of holding the context. The context then grows to each length in turn, where tokens are decoded
and taken back. Times are those since the last length. With ``--decoder-only`` random rows replace
encoded audio. ``--jump`` computes only the last part before a length, after zeros.

With ``--processor-time`` other programs on the machine do not count.

"Arithmetic" is the number of operations of a position in that stretch over that in the first one:
products of matrices stay the same, attention grows with all that came before.
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

from voxmlx.audio.mel import LogMelSpectrogram
from voxmlx.config import (
    AudioConfig,
    DecoderConfig,
    KVCacheConfig,
    ModelConfig,
    WhisperEncoderConfig,
)
from voxmlx.generation.offline_text import PREFILL_POSITIONS
from voxmlx.models.fuse import prepare_for_inference
from voxmlx.models.voxtral import Voxtral

RATE = 16000
N_TOKENS = 24
PER_MINUTE = 750
"""Positions of a minute of audio."""

_clock = time.perf_counter


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


def parse_kv(text: str) -> KVCacheConfig | None:
    bits, _, rotation = text.partition("-")
    return None if text == "none" else KVCacheConfig(int(bits), rotation)


def encode(model: Voxtral, n: int) -> tuple[list[mx.array], list[float]]:
    """Embeddings of noise, ``n`` positions or more, in chunks; and each chunk's seconds."""
    rng = np.random.default_rng(0)
    chunks, seconds = [], []
    for i in range(-(-n // model.chunk_tokens) + 1):
        samples = 0.1 * rng.standard_normal(model.chunk_samples).astype(np.float32)
        started = _clock()
        mel = LogMelSpectrogram(model.config.audio)(samples)
        rows = model.embed_audio(mx.array(mel)[None])
        mx.eval(rows)
        if i:  # the first one warms up
            seconds.append(_clock() - started)
            chunks.append(rows)
    return chunks, seconds


def grow(
    model: Voxtral, audio: mx.array | None, minutes: list[float], name: str, jump: bool = False
) -> Iterator[dict[str, Any]]:
    """Let one context grow; a row for each length on the way.

    Args:
        model: The network.
        audio: Encoded audio, ``(1, n, D)``; ``None`` for random rows.
        minutes: The lengths, ascending.
        name: How keys and values are held.
        jump: Skip to the last part before each length.
    """
    mx.clear_cache()
    weights = mx.get_active_memory()
    total = int(minutes[-1] * PER_MINUTE)
    cache = model.decoder.make_cache(
        PREFILL_POSITIONS, window=total + PREFILL_POSITIONS, kv=parse_kv(name)
    )
    cache.reserve(total)
    noise = mx.random.normal((1, PREFILL_POSITIONS, model.config.decoder.dim)).astype(model.dtype)
    mx.eval(noise, cache.store.buffers)
    mx.reset_peak_memory()
    first_flop, n = 0.0, 0
    for minute in minutes:
        end = int(minute * PER_MINUTE)
        if jump:
            cache.advance(max(0, end - PREFILL_POSITIONS - n))
            n = max(n, end - PREFILL_POSITIONS)
        begin, started = n, _clock()
        while n < end:
            k = min(PREFILL_POSITIONS, end - n)
            rows = noise[:, :k] if audio is None else audio[:, n : n + k]
            mx.eval(model(rows, cache)[:, -1:])
            n += k
        seconds = _clock() - started
        flop = operations(model, (begin + end) / 2)
        first_flop = first_flop or flop
        prompt_peak = mx.get_peak_memory() - weights
        yield {
            "kv": name,
            "minutes": minute,
            "positions": n,
            "ms_a_position": 1e3 * seconds / (end - begin),
            "arithmetic": flop / first_flop,
            "token_ms": decode(model, cache),
            "context_gb": cache.nbytes / 1e9,
            "prompt_peak_gb": prompt_peak / 1e9,
            "peak_over_weights_gb": (mx.get_peak_memory() - weights) / 1e9,
        }


def operations(model: Voxtral, n: float) -> float:
    """Operations of the decoder for a position after ``n`` others, its vocabulary left out."""
    c = model.config.decoder
    width, kv_width = c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim
    matrices = c.dim * (2 * width + 2 * kv_width + 3 * c.hidden_dim)
    return c.n_layers * (2 * matrices + 4 * width * n)


def decode(model: Voxtral, cache: Any) -> float:
    """Median milliseconds of a token, one after the other; they are taken back."""
    token, times = mx.array([[5]]), []
    for _ in range(N_TOKENS):
        token = model.decoder.logits(model(model.decoder.embed_tokens(token), cache)).argmax(-1)
        mx.eval(token)
        times.append(_clock())
    cache.rewind(N_TOKENS)
    return 1e3 * float(np.median(np.diff(times[3:])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 5, 10, 15, 20, 25, 30])
    parser.add_argument("--kv", nargs="+", default=["none"])
    parser.add_argument("--layers", type=int)
    parser.add_argument("--bits", type=int, help="quantise the decoder")
    parser.add_argument("--vocab", type=int, default=131072, help="ids, fewer for small machines")
    parser.add_argument("--float32", action="store_true", help="for CPUs")
    parser.add_argument("--decoder-only", action="store_true")
    parser.add_argument("--processor-time", action="store_true", help="for busy machines")
    parser.add_argument("--jump", action="store_true", help="compute the ends only")
    parser.add_argument("--output", type=Path, help="rows as JSON")
    args = parser.parse_args()
    if args.processor_time:
        global _clock
        _clock = time.process_time
    dtype = mx.float32 if args.float32 else mx.bfloat16
    minutes = sorted(args.minutes)
    model = make_model(args.layers, args.bits, dtype, args.vocab)
    print(f"{mx.default_device()}, weights {mx.get_active_memory() / 1e9:.2f} GB", flush=True)
    rows: list[dict[str, Any]] = []

    def keep(row: dict[str, Any]) -> None:
        rows.append(row)
        short = {k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}
        print(json.dumps(short), flush=True)
        if args.output is not None:
            args.output.write_text(json.dumps(rows, indent=1))

    audio = None
    if not args.decoder_only:
        chunks, seconds = encode(model, int(minutes[-1] * PER_MINUTE))
        audio = mx.concatenate(chunks, axis=1)
        mx.eval(audio)
        del chunks
        for k in range(0, len(seconds), 10):
            part = 1e3 * np.array(seconds[k : k + 10]) / model.chunk_tokens
            keep({"encoder_from_minute": k // 2, "ms_a_position": float(part.mean())})
    for _ in grow(model, audio, [0.1, minutes[0]], args.kv[0]):
        pass  # warm up
    for name in args.kv:
        for row in grow(model, audio, minutes, name, args.jump):
            keep(row)


if __name__ == "__main__":
    main()
