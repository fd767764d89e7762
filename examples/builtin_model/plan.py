"""What goes into each training clip: which utterances, where, how fast, and what is to be emitted.

Runs in loader processes; knows utterances by number only, never their sound.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import BOS, LEFT_PAD, PAD, RIGHT_BUFFER, SAMPLES_PER_TOKEN, Bpe, Shard, targets
from schedule import Schedule

SEGMENTS = 16
# shard, start, onset, offset, length (samples), words with their ends
Utterance = tuple[int, int, int, int, int, list[tuple[int, list[int]]]]
SHARES = {  # of what people said; spliced: new sentences from their sounds
    "librispeech": 0.18,
    "lj": 0.10,
    "coffee": 0.10,
    "digits": 0.02,
    "prompts": 0.05,
    "actors": 0.30,
    "spliced_people": 0.16,
    "spliced_mixed": 0.09,
    "spliced_lj": 0.15,
    "spliced_prompts": 0.04,
    "spliced_actors": 0.12,
}


@dataclass(frozen=True)
class Bucket:
    """A fixed batch shape: `batch` clips of `length` positions."""

    batch: int
    length: int


class Library:
    """The words and sizes of all shards in a folder; grows while speech is still being made."""

    def __init__(self, folder: Path, bpe: Bpe) -> None:
        self.folder, self.bpe = folder, bpe
        self.shards: list[str] = []
        self.items: dict[str, list[Utterance]] = {}
        self.weights: list[tuple[str, float]] = []
        self._looked = 0.0

    def refresh(self, order: list[str]) -> None:
        """Read the shards in `order` (the order of the sample bank) that are not known yet."""
        for name in order[len(self.shards) :]:
            shard = Shard.load(self.folder / name, audio=False)
            rows = self.items.setdefault(shard.source, [])
            index = len(self.shards)
            for u in range(len(shard.start)):
                words = [(int(e), self.bpe.word(w)) for e, w in shard.words[u]]
                length = int(shard.length[u])
                onset, offset = int(shard.onset[u]), min(int(shard.offset[u]), length)
                rows.append((index, int(shard.start[u]), onset, offset, length, words))
            self.shards.append(name)


def draw_delay(rng: random.Random) -> int:
    """1 to 15 and 30 tokens; a fifth of the clips at the default of 6."""
    kind = rng.random()
    if kind < 0.20:
        return 6
    if kind < 0.60:
        return rng.randint(3, 10)
    return rng.randint(1, 15) if kind < 0.96 else 30


class Planner:
    """Draws batches of plans from a library."""

    def __init__(
        self, library: Library, rng: random.Random, schedule: Schedule, spliced: float = 1.0
    ) -> None:
        self.library, self.rng, self.schedule = library, rng, schedule
        self.shares = {n: s * (spliced if "spliced" in n else 1) for n, s in SHARES.items()}

    def utterance(self, u: float) -> Utterance:
        """One utterance or a part of it, from the sources that the schedule wants at `u`."""
        items, rng = self.library.items, self.rng
        real = {n: share for n, share in self.shares.items() if n in items}
        made = {n: share for n, share in self.schedule.made(u).items() if n in items}
        if real and (not made or rng.random() < self.schedule.real(u)):
            name = rng.choices(list(real), list(real.values()))[0]
            return self.part(rng.choice(items[name]), 0.3 if "spliced" in name else 0.85)
        name = rng.choices(list(made), list(made.values()))[0]
        return self.part(rng.choice(items[name]), 0.25)

    def part(self, whole: Utterance, chance: float) -> Utterance:
        """With probability `chance` a random run of the words, so that no sentence is learnt."""
        shard, start, onset, offset, length, words = whole
        if len(words) < 3 or self.rng.random() >= chance:
            return whole
        first = self.rng.randrange(len(words))
        last = min(len(words) - 1, first + int(self.rng.expovariate(0.15)))
        cut = words[first - 1][0] if first else 0
        stop = words[last][0] if last < len(words) - 1 else length
        onset, offset = max(onset - cut, 0), min(offset, stop) - cut
        kept = [(end - cut, ids) for end, ids in words[first : last + 1]]
        if offset - onset < 1_600:
            return whole
        return shard, start + cut, onset, offset, stop - cut, kept

    def pause(self) -> float:
        """Silence between sentences in seconds."""
        kind = self.rng.random()
        if kind < 0.45:
            return self.rng.uniform(0.0, 0.15)
        if kind < 0.80:
            return self.rng.expovariate(2.0)
        return self.rng.uniform(0.3, 2.5) if kind < 0.94 else self.rng.uniform(2.0, 8.0)

    def clip(
        self, limit: int, u: float
    ) -> tuple[list[tuple[float, ...]], list[tuple[float, list[int]]], int]:
        """Segments (shard, source start, destination, its length, rate, gain), words, samples."""
        rng = self.rng
        if rng.random() < 0.04:
            return [], [], rng.randint(limit // 3, limit)
        wanted = limit if rng.random() < 0.5 else rng.randint(16_000, limit)
        at = 0 if rng.random() < 0.3 else int(16_000 * min(rng.expovariate(1.6), 8.0))
        segments: list[tuple[float, ...]] = []
        words: list[tuple[float, list[int]]] = []
        misses, end = 0, 0
        while len(segments) < SEGMENTS and misses < 6:
            shard, start, onset, offset, whole, spoken = self.utterance(u)
            rate = rng.uniform(0.83, 1.19) if rng.random() < 0.8 else 1.0
            source = max(0, onset - rng.choice([0, 160, 800, 1_600, 3_200, onset]))
            stop = min(
                whole, offset + rng.choice([0, 800, 1_600, 3_200, whole - offset, whole - offset])
            )
            length = int((stop - source) / rate)
            if at + length > wanted:
                misses += 1
                if not segments and misses == 3:
                    at, wanted = 0, limit
                continue
            gain = 10 ** (rng.gauss(0, 3.0) / 20)
            segments.append((shard, start + source, at, length, rate, gain))
            words += [(at + (e - source) / rate, ids) for e, ids in spoken]
            end = at + length
            at = end + int(16_000 * self.pause())
        if not segments:
            return [], [], wanted
        n = (
            end
            if rng.random() < 0.3
            else min(limit, max(end, min(wanted, end + int(rng.expovariate(1.0) * 16_000))))
        )
        return segments, words, max(n, 1_280)

    def batch(self, bucket: Bucket, u: float) -> dict[str, Any]:
        """Arrays of one batch; `shards` is how many shards of the bank it relies on."""
        B, T = bucket.batch, bucket.length
        out = {
            "segments": np.zeros((B, SEGMENTS, 6), np.float64),
            "samples": np.zeros(B, np.int64),
            "delays": np.zeros(B, np.int64),
            "targets": np.full((B, T), -1, np.int64),
            "tokens": np.full((B, T), PAD, np.int64),
            "voiced": np.zeros(B, np.bool_),
        }
        for b in range(B):
            delay = draw_delay(self.rng)
            limit = (T - LEFT_PAD - delay - RIGHT_BUFFER) * SAMPLES_PER_TOKEN
            segments, words, n = self.clip(limit, u)
            row = targets(words, n, delay, T)
            out["segments"][b, : len(segments)] = np.array(segments).reshape(-1, 6)
            out["samples"][b], out["delays"][b], out["voiced"][b] = n, delay, bool(segments)
            out["targets"][b] = row
            out["tokens"][b, 1:] = np.where(row[:-1] < 0, PAD, row[:-1])
            out["tokens"][b, 0] = BOS
        return {
            "shards": len(self.library.shards),
            **{k: torch.from_numpy(v) for k, v in out.items()},
        }


class Plans(torch.utils.data.IterableDataset[dict[str, Any]]):
    """Endless batches; reads `order` (shard names, one a line) again every few seconds."""

    def __init__(
        self,
        folder: Path,
        order: Path,
        tekken: Path,
        buckets: list[Bucket],
        clock: Any,
        schedule: Schedule,
        seed: int,
        spliced: float = 1.0,
    ) -> None:
        self.folder, self.order, self.tekken = folder, order, tekken
        self.buckets, self.clock, self.schedule = buckets, clock, schedule
        self.seed, self.spliced = seed, spliced

    def __iter__(self) -> Iterator[dict[str, Any]]:
        info = torch.utils.data.get_worker_info()
        worker = 0 if info is None else info.id
        rng = random.Random(self.seed * 1_000 + worker)
        library = Library(self.folder, Bpe(self.tekken))
        planner = Planner(library, rng, self.schedule, self.spliced)
        looked = 0.0
        step = worker
        while True:
            if time.time() - looked > 5:
                looked = time.time()
                library.refresh(self.order.read_text().split())
            bucket = self.buckets[step % len(self.buckets)]
            step += 1
            yield planner.batch(bucket, float(self.clock.value))
