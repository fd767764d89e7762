"""Hours of audio through one live session: memory, speed, and ids against other re-anchoring.

    python benchmarks/endless.py --hours 6 --model tiny

The audio is synthetic and never repeats. Over five minutes a session does not need to re-anchor,
and one that does at every chance must write the same ids. Over half an hour two tokens may come so
close that rounding decides. Every session runs in a process of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import time
from array import array
from collections.abc import Iterator
from multiprocessing import get_context

import numpy as np

from voxmlx.cache.ring import RingKVCache
from voxmlx.pipeline import load
from voxmlx.streaming.session import StreamingSession

RATE = 16000
CHUNK_S = 2.0


def speech(hours: float) -> Iterator[np.ndarray]:
    """Two-second pieces of voiced syllables over noise, made as they are asked for."""
    rng = np.random.default_rng(1)
    n = round(CHUNK_S * RATE)
    t = np.arange(n) / RATE
    for _ in range(round(hours * 3600 / CHUNK_S)):
        pitch = rng.uniform(90, 230)
        voice = sum(np.sin(2 * np.pi * k * pitch * t + rng.uniform(0, 6)) / k for k in range(1, 8))
        beat = np.clip(np.sin(2 * np.pi * rng.uniform(1, 4) * t + rng.uniform(0, 6)), 0, 1)
        samples = 0.1 * voice * beat + 0.005 * rng.standard_normal(n)
        yield samples.astype(np.float32)


def rss_mb() -> float:
    """Resident memory of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def run(hours: float, model: str, reanchor_at: int | None, report: bool) -> str:
    """Transcribe; returns a digest of all ids."""
    session = load(model).stream(top_logprobs=0)
    if reanchor_at is not None:
        eager(session, reanchor_at)
    n_moved = count_moves()
    digest = hashlib.sha256()
    ids, kinds = array("i"), set()
    rss, seconds, started, done_s = [], [], time.process_time(), 0.0
    for i, samples in enumerate(speech(hours), start=1):
        session.feed(samples)
        while session.pending:
            for event in session.step():
                if hasattr(event, "token_id"):
                    ids.append(event.token_id)
        digest.update(ids.tobytes())
        kinds.update(ids)
        del ids[:]
        done_s += CHUNK_S
        if i % 30 == 0:
            rss.append(rss_mb())
        if report and done_s % 1800 == 0:
            now = time.process_time()
            seconds.append(now - started)
            started = now
            print(
                f"{done_s / 3600:4.1f} h  RSS mean of 30 min {np.mean(rss[-30:]):6.1f} MB  "
                f"{seconds[-1] / 1800 * 1000:5.2f} ms of CPU time for a second of audio  "
                f"{n_moved[0]} re-anchored",
                flush=True,
            )
    if report and hours >= 2:
        first, last = np.mean(rss[:60]), np.mean(rss[-60:])
        print(f"RSS: first hour {first:.1f} MB, last {last:.1f} MB: {last / first - 1:+.2%}")
        a, b = np.mean(seconds[:2]), np.mean(seconds[-2:])
        print(f"CPU time: first hour {a:.1f} s for 30 min, last {b:.1f} s: {b / a - 1:+.2%}")
    print(
        f"{hours:g} h, reanchor_at={reanchor_at}: {n_moved[0]} re-anchorings, {len(kinds)} "
        f"different ids, digest {digest.hexdigest()[:16]}",
        flush=True,
    )
    return digest.hexdigest()


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--hours", type=float, default=6.0)
    parser.add_argument("--model", default="tiny")
    options = parser.parse_args()
    for hours in (1 / 12, 0.5):
        often, normal, never = (alone((hours, options.model, at, False)) for at in (0, None, 2**30))
        print(f"{hours * 60:g} min: ids at every chance and as usual equal: {often == normal}")
        print(f"{hours * 60:g} min: ids as usual and never equal: {normal == never}", flush=True)
    alone((options.hours, options.model, None, True))


def alone(arguments: tuple[float, str, int | None, bool]) -> str:
    """Run in a fresh process."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(run, arguments)


if __name__ == "__main__":
    main()
