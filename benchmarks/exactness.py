"""Ids of guessing and of batches against the plain greedy loop, on real recordings, in float32.

    python benchmarks/exactness.py MODEL RECORDING... [--widths 2 3 ... 64] [--rows 1 4 32]

The reference is a loop over ``decode_step`` with one position at a time: no row, no batch, no
guess. Prints every difference, and how many streams were equal.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import mlx.core as mx
import numpy as np

from voxmlx import load
from voxmlx.audio.decode import read_audio
from voxmlx.generation.batch import BatchDecoder
from voxmlx.generation.greedy import TokenStream
from voxmlx.generation.prompt import delay_tokens, right_padding, streaming_prompt
from voxmlx.generation.row import RowOptions, SpecialIds
from voxmlx.generation.step import DecodeState, decode_step
from voxmlx.models.voxtral_realtime import VoxtralRealtime
from voxmlx.streaming.embedder import AudioEmbedder


def embed(model: VoxtralRealtime, samples: np.ndarray, n_delay: int) -> mx.array:
    """Audio embeddings of a padded recording, ``(1, n, D)``."""
    embedder = AudioEmbedder(model, 25)
    per_token = model.config.audio.samples_per_token
    embedder.feed(samples)
    embedder.feed(np.zeros(right_padding(len(samples), n_delay, per_token) + 200, np.float32))
    parts = []
    while embedder.n_ready:
        parts.append(embedder.encode())
        mx.eval(parts[-1])
    return mx.concatenate(parts, axis=1)


def plain(model: VoxtralRealtime, audio: mx.array, n_delay: int, ids: SpecialIds) -> list[int]:
    """The plain loop."""
    prompt = streaming_prompt(ids.bos, ids.pad, model.config.n_left_pad_tokens, n_delay)
    state = DecodeState(model.decoder.make_cache(64), model.decoder.conditioning(n_delay))
    n = len(prompt)
    logits = decode_step(model, state, mx.array([prompt]), audio[:, :n], 1)
    found = [int(mx.argmax(logits[0, -1]))]
    for position in range(n, audio.shape[1]):
        if found[-1] == ids.eos:
            break
        part = audio[:, position : position + 1]
        logits = decode_step(model, state, mx.array([[found[-1]]]), part, 1)
        found.append(int(mx.argmax(logits[0, -1])))
    return found


def batched(
    model: VoxtralRealtime, clips: list[mx.array], n_delay: int, ids: SpecialIds, rows: int
) -> list[list[int]]:
    """Rows that join and leave a batch, widths chosen as it likes."""
    decoder = BatchDecoder(model, ids, max_rows=rows)
    waiting = list(enumerate(clips))
    working: dict[int, int] = {}
    found: list[list[int]] = [[] for _ in clips]
    while waiting or working:
        while waiting and len(working) < rows:
            i, audio = waiting.pop(0)
            key = decoder.join(RowOptions(n_delay))
            decoder.add(key, audio)
            working[key] = i
        for key, tokens in decoder.step().items():
            found[working[key]] += [token.id for token in tokens]
        for key in [key for key in working if not decoder.n_ready(key)]:
            decoder.leave(key)
            del working[key]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("recordings", nargs="+")
    parser.add_argument("--delays", type=int, nargs="+", default=[240, 480, 960])
    parser.add_argument("--widths", type=int, nargs="+", default=[2, 4, 8, 16, 32, 64])
    parser.add_argument("--rows", type=int, nargs="+", default=[4, 32])
    parser.add_argument("--seconds", type=float, default=30.0, help="of each recording, at most")
    args = parser.parse_args()
    pipeline: Any = load(args.model, dtype="float32")
    model, tokenizer = pipeline.model, pipeline.tokenizer
    ids = SpecialIds(tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id)
    clips = [read_audio(path)[: round(16000 * args.seconds)] for path in args.recordings]
    n_equal = n_streams = n_tokens = 0
    started = time.perf_counter()
    for delay in args.delays:
        n_delay = delay_tokens(delay, model.config.audio)
        audio = [embed(model, clip, n_delay) for clip in clips]
        expected = [plain(model, rows, n_delay, ids) for rows in audio]
        n_tokens += sum(map(len, expected))
        ways: dict[str, list[list[int]]] = {}
        for width in [*args.widths, None]:
            streams = [
                TokenStream(model, ids, RowOptions(n_delay, positions_per_pass=width))
                for _ in audio
            ]
            found = []
            for stream, rows in zip(streams, audio, strict=True):
                stream.add(rows)
                found.append([token.id for token in stream.step(10**9)])
            ways[f"{width or 'chosen'} positions"] = found
        for n in args.rows:
            ways[f"{n} rows"] = batched(model, audio, n_delay, ids, n)
        for way, found in ways.items():
            for path, one, other in zip(args.recordings, expected, found, strict=True):
                n_streams += 1
                n_equal += one == other
                if one != other:
                    at = next(
                        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), -1
                    )
                    print(f"{path} at {delay} ms, {way}: differs from token {at} on")
        seconds = time.perf_counter() - started
        print(f"{delay} ms: {n_equal} of {n_streams} equal, {seconds:.0f} s", flush=True)
    print(f"{n_equal} of {n_streams} streams equal; the plain loop gave {n_tokens} tokens")


if __name__ == "__main__":
    main()
