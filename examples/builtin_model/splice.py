"""Step 2d, on CPU cores while training runs: new sentences from the recordings' own sounds.

    python splice.py --data DIR --text text.tsv --voice lj --out DIR --seconds 600 --workers 8

Takes the shards of recordings in DIR apart into runs of a few phones and joins them in the order of
other sentences, so that a voice of which there is little is heard in words that it never said. Runs
meet in the middle of a phone, where both spectra are alike and the waves fit best.
"""

from __future__ import annotations

import argparse
import random
import re
from collections import defaultdict
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import workers
from common import KOKORO_PHONES, PHONE_ID, Shard

VOICES = {
    "lj": ["real_lj"],
    "people": ["real_librispeech"],
    "mixed": ["real_librispeech", "real_coffee"],
    "prompts": ["real_prompts"],
    "actors": ["real_actors"],
}
FADE = 128  # samples over which two runs are mixed
SEARCH = 80  # samples by which the second may move to fit the first
PAUSE = 12  # most 10 ms frames kept of a pause at the end of a run
VOWELS = "AIOQWYaeiouæɐɑɒɔəɚɛɜɪʊʌᵊᵻ"
CLIPS_PER_SHARD = 1_000


def pronounce(phonemes: str) -> list[list[int]]:
    """Phone ids of each word; an empty list is a pause. Schwa and r before no vowel are one."""
    phonemes = re.sub(rf"[əɜ]ː?ɹ(?![ˈˌ]?[{VOWELS}])", "ɜ", phonemes)
    out: list[list[int]] = []
    for word in phonemes.split():
        ids = [PHONE_ID[KOKORO_PHONES[c]] for c in word if c in KOKORO_PHONES]
        if ids:
            out.append(ids)
        if word[-1] in ",;:.!?—…":
            out.append([])
    return out


class Units:
    """Every phone of some recordings: where it lies, what follows, how its middle sounds."""

    def __init__(self, shards: list[Shard]) -> None:
        self.audio = np.concatenate([s.audio for s in shards]).astype(np.float32) / 32768
        phone, start, stop, clip = [], [], [], []
        base, clips = 0, 0
        for shard in shards:
            for first, length in zip(shard.start, shard.length, strict=True):
                track = shard.track[first // 160 : (first + length) // 160]
                edges = np.flatnonzero(np.diff(track)) + 1
                bounds = [0, *edges.tolist(), len(track)]
                for a, b in pairwise(bounds):
                    phone.append(int(track[a]))
                    start.append((base + first) // 160 + a)
                    stop.append((base + first) // 160 + b)
                    clip.append(clips)
                phone.append(-1)
                start.append(0)
                stop.append(0)
                clip.append(-1)
                clips += 1
            base += len(shard.audio)
        pad = [-1] * 16
        self.phone = np.array(phone + pad)
        self.start, self.stop, self.clip = np.array(start), np.array(stop), np.array(clip)
        self.middle = (self.start + self.stop) * 80  # samples
        self.sound = self._sounds()
        self.voice = np.zeros((clips, self.sound.shape[1]), np.float32)
        for c in range(clips):
            self.voice[c] = self.sound[(self.clip == c) & (self.phone[: len(self.clip)] > 0)].mean(
                0
            )
        self.pairs: dict[tuple[int, int], np.ndarray] = {}
        found = defaultdict(list)
        for i in range(len(phone) - 1):
            if phone[i] >= 0 and phone[i + 1] >= 0:
                found[phone[i], phone[i + 1]].append(i)
        self.pairs = {pair: np.array(at) for pair, at in found.items()}

    def _sounds(self) -> np.ndarray:
        """(units, 24) log energies of bands of about equal width in mel, at each middle."""
        edges = np.round(700 * (np.exp(np.linspace(0, 2.45, 25)) - 1) / 7_420 * 256).astype(int)
        window = np.hanning(512)
        out = np.zeros((len(self.start), 24), np.float32)
        audio = np.pad(self.audio, 512)
        for i, at in enumerate(self.middle):
            power = np.abs(np.fft.rfft(audio[at + 256 : at + 768] * window)) ** 2
            bands = [power[a : max(b, a + 1)].mean() for a, b in pairwise(edges)]
            out[i] = np.log(np.array(bands) + 1e-5)
        return out

    def choose(
        self, target: list[int], rng: np.random.Generator, longest: int
    ) -> list[tuple[int, int]] | None:
        """(first, last unit) of each run; neighbours share a phone. None if a pair is missing."""
        runs: list[tuple[int, int]] = []
        anchor = self.voice[rng.integers(len(self.voice))]
        near = np.abs(self.voice - anchor).mean(1) * 2.0
        i = 0
        while i < len(target) - 1:
            at = self.pairs.get((target[i], target[i + 1]))
            if at is None:
                return None
            alive = np.ones(len(at), bool)
            length = np.full(len(at), 2)
            for k in range(2, min(longest, len(target) - i)):
                alive &= self.phone[at + k] == target[i + k]
                length += alive
            score = length + rng.gumbel(size=len(at)) * 0.7 - near[self.clip[at]]
            if runs:
                last = runs[-1][1]
                score -= 1.2 * np.abs(self.sound[at] - self.sound[last]).mean(1)
                score += (self.clip[at] == self.clip[last]) * 0.7
                score -= 9.0 * (at == last)
            best = int(score.argmax())
            runs.append((int(at[best]), int(at[best] + length[best] - 1)))
            i += int(length[best]) - 1
        return runs

    def join(self, runs: list[tuple[int, int]]) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
        """Sound, and (phone, first sample, end) of each phone."""
        parts = np.zeros(0, np.float32)
        phones: list[list[int]] = []
        for a, b in runs:
            first, stop = int(self.middle[a]), int(self.middle[b])
            if self.phone[a] == 0:
                first = max(first, int(self.stop[a] - PAUSE) * 160)
            if self.phone[b] == 0:
                stop = min(stop, int(self.start[b] + PAUSE) * 160)
            half = FADE // 2
            piece = self.audio[max(first - half - SEARCH, 0) : stop + half]
            lag = SEARCH
            if len(parts) >= FADE and len(piece) > FADE + 2 * SEARCH:
                tail = parts[-FADE:]
                fits = np.correlate(piece[: FADE + 2 * SEARCH], tail, "valid")
                energy = np.convolve(piece[: FADE + 2 * SEARCH] ** 2, np.ones(FADE), "valid")
                lag = int((fits / np.sqrt(energy + 1e-4)).argmax())
                ratio = np.sqrt(((tail**2).mean() + 1e-6) / (energy[lag] / FADE + 1e-6))
                piece = piece[lag:] * np.clip(ratio**0.5, 0.6, 1.6)
                ramp = np.linspace(0, 1, FADE, dtype=np.float32)
                parts[-FADE:] = tail * (1 - ramp) + piece[:FADE] * ramp
                begin = len(parts) - half
                parts = np.concatenate([parts, piece[FADE:]])
            else:
                begin = len(parts) + half if len(parts) else half
                parts = np.concatenate([parts, piece[SEARCH:]])
            shift = begin - first - (lag - SEARCH)
            for u in range(a, b + 1):
                s = max(int(self.start[u]) * 160, first) + shift
                e = min(int(self.stop[u]) * 160, stop) + shift
                if phones and u == a:
                    phones[-1][2] = e  # the other half of the shared phone
                else:
                    phones.append([int(self.phone[u]), s, e])
        return parts, [tuple(p) for p in phones]


def sentence(
    units: Units, phonemes: str, text: str, rng: np.random.Generator
) -> dict[str, Any] | None:
    """A clip for common.build_shard, or None."""
    words, spelled = pronounce(phonemes), text.split()
    if sum(bool(w) for w in words) != len(spelled):
        return None
    target, ends = [0], []
    for word in words:
        for p in word or [0]:
            if p != target[-1]:
                target.append(p)
        if word:
            ends.append(len(target) - 1)
    if target[-1] != 0:
        target.append(0)
    runs = units.choose(target, rng, int(rng.choice([2, 3, 4, 6])))
    if runs is None:
        return None
    wave, phones = units.join(runs)
    if len(phones) != len(target) or not 8_000 < len(wave) < 240_000:
        return None
    track = np.zeros(len(wave) // 160 + 1, np.uint8)
    for phone, a, b in phones:
        track[a // 160 : b // 160] = phone
    wave = wave / max(1e-3, float(np.abs(wave).max())) * 0.7
    return {
        "audio": np.round(wave * 32767).astype(np.int16),
        "track": track,
        "onset": max(0, phones[1][1]),
        "offset": min(len(wave), phones[-2][2]),
        "words": [
            (min(int(phones[e][2]), len(wave)), w) for e, w in zip(ends, spelled, strict=True)
        ],
    }


def work(args: argparse.Namespace, worker: int, began: float) -> None:
    """Shards until the time is over."""
    paths = [args.data / name for name in VOICES[args.voice]]
    units = Units([Shard.load(path) for path in paths if path.with_suffix(".json").exists()])
    lines = [line.rstrip("\n").split("\t") for line in open(args.text)]
    lines = [r for r in lines if r[:2] == ["train", "a"] and len(r[3].split()) < 30]
    random.Random(args.seed).shuffle(lines)
    lines = lines[worker :: args.workers]
    rng = np.random.default_rng(args.seed * 100 + worker)
    turns = cycle(lines)

    def speak() -> list[dict[str, Any]]:
        row = next(turns)
        clip = sentence(units, row[2], row[3], rng)
        return [] if clip is None else [clip]

    def wanted(index: int) -> int:
        return CLIPS_PER_SHARD if index else 250

    name = f"s_{args.voice}{worker}"
    workers.write_shards(args, began, f"spliced_{args.voice}", name, 0, speak, wanted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("--data", "--text", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--voice", choices=sorted(VOICES), required=True)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--shards", type=int, default=0, help="at most so many a worker")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    workers.wait_for(work, args)


if __name__ == "__main__":
    main()
