"""Hours of audio through one live session: memory, speed, and ids against other re-anchoring.

    python benchmarks/endless.py --hours 6 --model random
    python benchmarks/endless.py --hours 0 --minutes 24 --model tiny --recording FILE

The audio never repeats: synthetic syllables, or a recording from another moment on, louder or
softer, each time. A session that re-anchors at every chance, one that does so as usual and one that
never does must write the same ids. Where they part, it is told how close the two likeliest tokens
were: if no closer than rounding, something is wrong. Every session runs in a process of its own.
``random`` is a small network of one layer a stack.
"""

from __future__ import annotations

import argparse
import os
import time
from array import array
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import mlx.core as mx
import numpy as np

import voxmlx
from voxmlx.audio.decode import read_audio
from voxmlx.cache.ring import RingKVCache
from voxmlx.config import DecoderConfig, EncoderConfig
from voxmlx.models.random_model import TINY, random_model
from voxmlx.pipeline import Pipeline, load
from voxmlx.streaming.session import StreamingSession
from voxmlx.tokenizer import Tokenizer
from voxmlx.types import TokenScores

RATE = 16000
CHUNK_S = 2.0


def speech(hours: float, recording: str | None) -> Iterator[np.ndarray]:
    """Two-second pieces, made as they are asked for."""
    rng = np.random.default_rng(1)
    n = round(CHUNK_S * RATE)
    pieces = syllables(rng, n) if recording is None else excerpts(rng, n, read_audio(recording))
    for _ in range(round(hours * 3600 / CHUNK_S)):
        yield next(pieces)


def syllables(rng: np.random.Generator, n: int) -> Iterator[np.ndarray]:
    """Voiced syllables over noise."""
    t = np.arange(n) / RATE
    while True:
        pitch = rng.uniform(90, 230)
        voice = sum(np.sin(2 * np.pi * k * pitch * t + rng.uniform(0, 6)) / k for k in range(1, 8))
        beat = np.clip(np.sin(2 * np.pi * rng.uniform(1, 4) * t + rng.uniform(0, 6)), 0, 1)
        samples = 0.1 * voice * beat + 0.005 * rng.standard_normal(n)
        yield samples.astype(np.float32)


def excerpts(rng: np.random.Generator, n: int, recording: np.ndarray) -> Iterator[np.ndarray]:
    """Half a minute of a recording from anywhere, again and again."""
    while True:
        start, gain = rng.integers(len(recording)), np.float32(rng.uniform(0.3, 1.5))
        part = gain * np.resize(np.roll(recording, -start), 15 * n)
        yield from part.reshape(15, n)


def rss_mb() -> float:
    """Resident memory of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def run(hours: float, model: str, recording: str | None) -> None:
    """Transcribe, and report memory and time on the way."""
    session = open_pipeline(model).stream()
    rss, seconds, started = [], [], time.process_time()
    for i, samples in enumerate(speech(hours, recording), start=1):
        session.feed(samples)
        while session.pending:
            session.step()
        done_s = i * CHUNK_S
        if i % 30 == 0:
            rss.append(rss_mb())
        if done_s % 1800 == 0:
            now = time.process_time()
            seconds.append(now - started)
            started = now
            print(
                f"{done_s / 3600:4.1f} h  RSS mean of 30 min {np.mean(rss[-30:]):6.2f} MB  MLX "
                f"{mx.get_active_memory() / 1e6:.2f} + {mx.get_cache_memory() / 1e6:.2f} MB  "
                f"{seconds[-1] / 1800 * 1000:5.2f} ms of CPU time for a second of audio",
                flush=True,
            )
    if hours >= 2:
        first, last = np.mean(rss[:60]), np.mean(rss[-60:])
        print(f"RSS: first hour {first:.2f} MB, last {last:.2f} MB: {last / first - 1:+.2%}")
        a, b = np.mean(seconds[:2]), np.mean(seconds[-2:])
        print(f"CPU time: first hour {a:.1f} s for 30 min, last {b:.1f} s: {b / a - 1:+.2%}")


def ids(
    minutes: float, model: str, recording: str | None, reanchor_at: int | None
) -> tuple[int, array[int], array[float]]:
    """Re-anchorings, ids, and for each how far the likeliest token was ahead of the second."""
    session = open_pipeline(model).stream(top_logprobs=2)
    if reanchor_at is not None:
        eager(session, reanchor_at)
    n_moved, tokens, leads = count_moves(), array("i"), array("f")
    for samples in speech(minutes / 60, recording):
        session.feed(samples)
        while session.pending:
            for event in session.step():
                if isinstance(event, TokenScores):
                    (_, best), (_, second) = event.alternatives
                    tokens.append(event.token_id)
                    leads.append(best - second)
    return n_moved[0], tokens, leads


def compare(minutes: float, model: str, recording: str | None, cpu: bool) -> None:
    """Print where the ids of sessions part that re-anchor in different ways."""
    ways = {"at every chance": 0, "as usual": None, "never": 2**30}
    with get_context("spawn").Pool(min(3, os.cpu_count() or 1), use_cpu if cpu else None) as pool:
        arguments = [(minutes, model, recording, at) for at in ways.values()]
        results = dict(zip(ways, pool.starmap(ids, arguments), strict=True))
    _, expected, leads = results["never"]
    for way, (n_moved, tokens, _) in results.items():
        n = next((i for i, (a, b) in enumerate(zip(tokens, expected, strict=True)) if a != b), None)
        told = "the same ids"
        if n is not None:
            told = f"other ids from token {n} on, whose lead was {leads[n]:.1e}"
        print(
            f"{minutes:g} min, {model}, re-anchored {way} ({n_moved} times): {told}; {len(tokens)} "
            f"tokens, {len(set(tokens))} different, lead in the middle {np.median(leads):.2g}",
            flush=True,
        )


def open_pipeline(model: str) -> Pipeline:
    """A model by name, or a small one with random weights."""
    if model != "random":
        return load(model)
    encoder = EncoderConfig(64, 1, 2, 32, 128, 256)
    decoder = DecoderConfig(128, 1, 4, 2, 32, 256, TINY.decoder.vocab_size, 192, ada_dim=32)
    network = random_model(replace(TINY, encoder=encoder, decoder=decoder), mx.float32)
    assets = Path(voxmlx.__file__).parent / "assets"
    return Pipeline(network, Tokenizer.from_file(assets / "tiny" / "tekken.json"))


def eager(session: StreamingSession, reanchor_at: int) -> None:
    """Let both rings of a session re-anchor at another position."""
    session._embedder._state.cache.reanchor_at = reanchor_at
    session._stream._stream._decoder._cache.reanchor_at = reanchor_at


def count_moves() -> list[int]:
    """Count from now on how often a ring moves back."""
    count, reanchor = [0], RingKVCache.reanchor

    def counted(cache: RingKVCache) -> None:
        before = cache.offsets
        reanchor(cache)
        count[0] += cache.offsets != before

    RingKVCache.reanchor = counted  # type: ignore[method-assign]
    return count


def use_cpu() -> None:
    """Compute on the CPU in this process."""
    mx.set_default_device(mx.cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--hours", type=float, default=6.0, help="for memory and speed")
    parser.add_argument("--minutes", type=float, default=24.0, help="for the ids")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--recording", help="what is said; syllables otherwise")
    parser.add_argument("--cpu", action="store_true", help="even where there is a GPU")
    options = parser.parse_args()
    if options.cpu:
        use_cpu()
    if options.minutes:
        compare(options.minutes, options.model, options.recording, options.cpu)
    if options.hours:
        run(options.hours, options.model, options.recording)


if __name__ == "__main__":
    main()
