"""Step 2, on the GPU: speech for the sentences, as shards that training picks up as they appear.

    python synthesise.py --kokoro DIR --text text.tsv --voices voices.npz --out DIR --seconds 480 \
        --worker 0 --workers 2
    python synthesise.py ... --held-out 260          # the never-trained voices and sentences, once

`DIR` holds kokoro.int8.onnx and the unzipped `kokoro` wheel. Word and phone times come from the
voice model's own durations. Voices are single tables or mixes of two.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any

import manners
import numpy as np
import torch
from accents import accented
from common import KOKORO_PHONES, PHONE_ID, build_shard
from kokoro_voice import FRAME, STYLE, build, synthesise
from kokoro_weights import Export

HELD_OUT = "af_kore af_sky am_eric am_puck bf_lily bm_daniel".split()
LINES_PER_SHARD = 1_536
MAX_SECONDS = 15.0
EARLY = 6  # 10 ms units by which Kokoro's sound comes before the frames of its letters


class Voices:
    """Draws styles: single tables, pairs, and now and then a pair with a foreign accent in it."""

    def __init__(self, path: Path, rng: random.Random) -> None:
        with np.load(path) as data:
            self.tables = {name: data[name].astype(np.float32) for name in data.files}
        self.rng = rng
        english = [
            v for v in self.tables if v[:2] in ("af", "am", "bf", "bm") and v not in HELD_OUT
        ]
        self.english = {accent: [v for v in english if v[0] == accent] for accent in "ab"}
        self.foreign = [v for v in self.tables if v[0] not in "ab"]
        self.all = english + self.foreign
        self.centre = np.mean([self.tables[v] for v in self.all], 0)

    def draw(self, accent: str, length: int, plain: bool = False) -> np.ndarray:
        """(256,) style for a phoneme string of `length` letters: timbre, then prosody.

        A plain one is of an English voice, or of two.
        """
        row = min(length, 199) - 1
        rng, tables = self.rng, self.tables

        def english(of: str) -> np.ndarray:
            return tables[rng.choice(self.english[of])][row]

        first = english(accent if rng.random() < 0.85 else rng.choice("ab"))
        kind = rng.random() * (0.35 if plain else 1.0)
        if kind < 0.15:
            return first
        second = english(rng.choice("ab"))
        beyond = rng.random() < 0.4
        mixed = first + rng.uniform(*((-0.3, 1.3) if beyond else (0.2, 0.8))) * (second - first)
        if kind < 0.35:
            return mixed
        if kind < 0.50:  # the sound of one, the prosody of another
            return np.concatenate([second[:STYLE], mixed[STYLE:]])
        foreign = tables[rng.choice(self.foreign)][row]
        if kind < 0.72:  # the sound of nobody: three voices, away from the mean of all
            several = [tables[v][row][:STYLE] for v in rng.sample(self.all, 3)]
            shares = np.array([rng.expovariate(1.0) for _ in several])
            centre = self.centre[row][:STYLE]
            sound = (shares[:, None] * (np.stack(several) - centre)).sum(0) / shares.sum()
            sound = centre + rng.uniform(1.0, 1.7) * sound
            return np.concatenate([sound, mixed[STYLE:]])
        if kind < 0.93:  # foreign in its sound alone
            weight = rng.uniform(0.4, 1.0)
            sound = weight * foreign + (1 - weight) * second
            return np.concatenate([sound[:STYLE], mixed[STYLE:]])
        weight = rng.uniform(0.45, 0.8)
        return weight * first + (1 - weight) * foreign


def read_lines(path: Path, split: str) -> list[tuple[str, str, str]]:
    """(accent, phonemes, words) of one split."""
    rows = [line.rstrip("\n").split("\t") for line in open(path)]
    return [(r[1], r[2], r[3]) for r in rows if len(r) == 4 and r[0] == split]


def label(
    phonemes: str, kept: list[str], durations: np.ndarray, words: str
) -> dict[str, Any] | None:
    """Phone track at 100 Hz, word ends and limits, from durations (25 ms frames, end marks too)."""
    ends = np.cumsum(durations)
    track_ids = np.zeros(len(kept), np.int64)
    current, word_ends, last_phone_end, onset = 0, [], 0, None
    for i, letter in enumerate(kept):
        end = int(ends[i + 1])
        phone = KOKORO_PHONES.get(letter)
        if phone is not None:
            if phone == "R" and current == PHONE_ID["ER"]:
                phone = "ER"
            current = PHONE_ID[phone]
            onset = int(ends[i]) if onset is None else onset
            last_phone_end = end
        elif letter == "ː":
            last_phone_end = end
        elif letter == " ":
            word_ends.append(last_phone_end)
            current = 0 if durations[i + 1] >= 3 else current
        elif letter in ",.;:!?—…":
            current = 0
        else:  # stress: belongs to the phone that follows
            following = next((KOKORO_PHONES[c] for c in kept[i + 1 :] if c in KOKORO_PHONES), "SIL")
            current = PHONE_ID[following]
        track_ids[i] = current
    word_ends.append(last_phone_end)
    text = words.split()
    if len(word_ends) != len(text) or onset is None:
        return None
    units = np.concatenate([[0], track_ids, [0]])
    track = np.repeat(units, durations)  # 40 Hz
    track = track[np.minimum(np.arange(int(len(track) * 2.5)) * 2 // 5, len(track) - 1)]

    def sample(frame: int) -> int:
        return max(0, int(frame) * 400 - EARLY * 160)

    return {
        "track": np.pad(track[EARLY:], (0, EARLY)).astype(np.uint8),
        "onset": sample(onset),
        "offset": sample(last_phone_end),
        "words": [(sample(e), w) for e, w in zip(word_ends, text, strict=True)],
    }


def to_16k(audio: torch.Tensor) -> torch.Tensor:
    """(B, n) at 24 kHz to (B, 2n/3) at 16 kHz, by cutting the spectrum."""
    n = audio.shape[1]
    size = -(-n // 24_000) * 24_000
    spectrum = torch.fft.rfft(torch.nn.functional.pad(audio, (0, size - n)))
    return torch.fft.irfft(spectrum[:, : size // 3 + 1], n=size * 2 // 3)[:, : n * 2 // 3] * (2 / 3)


def speak(
    model: Any,
    vocab: dict[str, int],
    lines: list[tuple[str, str, str]],
    styles: np.ndarray,
    speeds: np.ndarray,
    device: str,
    colours: np.ndarray | None = None,
    rng: random.Random | None = None,
) -> list[dict[str, Any]]:
    """Clips (see common.build_shard) of one batch of lines; with `rng` in a manner drawn for each.

    `colours` are voices like `styles` (see manners.draw).
    """
    kept = [[c for c in line[1] if c in vocab] for line in lines]
    ids = [[vocab[c] for c in row] for row in kept]
    drawn = None
    if rng is not None and colours is not None:
        drawn = manners.draw(kept, vocab, styles, colours, rng).to(device)
    audio, durations = synthesise(
        model,
        ids,
        torch.from_numpy(styles).to(device),
        torch.from_numpy(speeds).to(device),
        drawn,
    )
    audio = to_16k(audio.float()).cpu().numpy()
    durations = durations.cpu().numpy()
    clips = []
    for line, letters, wave, frames in zip(lines, kept, audio, durations, strict=True):
        frames = frames[: len(letters) + 2].copy()
        clip = label(line[1], letters, frames, line[2])
        if clip is None:
            continue
        end = min(len(wave), clip["offset"] + 6_400, int(frames.sum()) * FRAME * 2 // 3)
        peak = float(np.abs(wave).max())
        if end > MAX_SECONDS * 16_000 or not np.isfinite(peak) or peak < 1e-3:
            continue
        clip["audio"] = np.round(wave[:end] / peak * 0.7 * 32767).astype(np.int16)
        clips.append(clip)
    return clips


def batches(
    lines: list[tuple[str, str, str]], size: int, rng: random.Random
) -> list[list[tuple[str, str, str]]]:
    """Lines of similar length together, the batches in random order."""
    ordered = sorted(lines, key=lambda line: len(line[1]))
    parts = [ordered[i : i + size] for i in range(0, len(ordered), size)]
    rng.shuffle(parts)
    return parts


def held_out(
    model: Any, vocab: dict[str, int], voices: Voices, args: argparse.Namespace, device: str
) -> None:
    """Write the never-trained test set as one shard and as Opus files with text.tsv."""
    import soundfile

    rng = random.Random(11)
    lines = [line for line in read_lines(args.text, "test") if 4 <= len(line[2].split()) <= 16]
    lines = lines[: args.held_out]
    jobs = [
        (line, HELD_OUT[:4][i % 4] if line[0] == "a" else HELD_OUT[4:][i % 2])
        for i, line in enumerate(lines)
    ]
    jobs.sort(key=lambda job: len(job[0][1]))
    clips, names = [], []
    for i in range(0, len(jobs), args.batch):
        part = jobs[i : i + args.batch]
        styles = np.stack([voices.tables[v][min(len(line[1]), 199) - 1] for line, v in part])
        speeds = np.array([rng.uniform(0.9, 1.15) for _ in part], np.float32)
        made = speak(model, vocab, [line for line, _ in part], styles, speeds, device)
        texts = {line[2]: voice for line, voice in part}
        for clip in made:
            text = " ".join(w for _, w in clip["words"])
            names.append((texts[text], text))
            clips.append(clip)
    folder = args.out / "held_out"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "text.tsv", "w") as file:
        for i, (clip, (voice, text)) in enumerate(zip(clips, names, strict=True)):
            name = f"{i:03d}_{voice}.ogg"
            wave = clip["audio"][max(0, clip["onset"] - 3_200) :]
            soundfile.write(
                folder / name, wave.astype(np.float32) / 32768, 16_000, format="OGG", subtype="OPUS"
            )
            print(name, text, sep="\t", file=file)
    print(f"held out: {len(clips)} clips", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kokoro", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--voices", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--worker", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=480)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lines-per-shard", type=int, default=LINES_PER_SHARD)
    parser.add_argument(
        "--clean",
        type=float,
        default=0.0,
        help="share of the shards in Kokoro's own manner, without accents: source kokoro_clean",
    )
    parser.add_argument("--held-out", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    began = time.time()
    args.out.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    rng = random.Random(1_000 * args.seed + args.worker)
    torch.manual_seed(rng.randrange(1 << 30))
    model = build(Export(args.kokoro / "kokoro.int8.onnx").weights(), args.kokoro)
    model.to(device)
    vocab = json.loads((args.kokoro / "vocab.json").read_text())["vocab"]
    voices = Voices(args.voices, rng)
    print(f"voice model ready after {time.time() - began:.0f} s", flush=True)
    if args.held_out:
        held_out(model, vocab, voices, args, device)
        return
    made, index, position = 0.0, len(list(args.out.glob(f"k{args.worker}_*.json"))), 0
    while time.time() - began < args.seconds:
        lines = read_lines(args.text, "train")[
            args.worker :: args.workers
        ]  # the file may have grown
        chunk = [
            lines[(position + i) % len(lines)] for i in range(min(args.lines_per_shard, len(lines)))
        ]
        position += len(chunk)
        turn = index + args.worker / args.workers
        clean = int((turn + 1) * args.clean) > int(turn * args.clean)
        clips: list[dict[str, Any]] = []
        for part in batches(chunk, args.batch, rng):
            styles, colours = (
                np.float32([voices.draw(line[0], len(line[1]), clean) for line in part])
                for _ in range(2)
            )
            speeds = np.array([rng.uniform(0.7, 1.3) for _ in part], np.float32)
            if clean:
                clips += speak(model, vocab, part, styles, speeds, device)
            else:
                part = [(accent, accented(said, words, rng), words) for accent, said, words in part]
                clips += speak(model, vocab, part, styles, speeds, device, colours, rng)
            if time.time() - began > args.seconds:
                break
        shard = build_shard(clips, "kokoro_clean" if clean else "kokoro")
        shard.save(args.out / f"k{args.worker}_{index:04d}")
        index += 1
        made += float(shard.length.sum()) / 16_000
        print(
            f"worker {args.worker}: {index} shards, {made / 3600:.2f} h, "
            f"{made / (time.time() - began):.0f} x real time",
            flush=True,
        )


if __name__ == "__main__":
    main()
