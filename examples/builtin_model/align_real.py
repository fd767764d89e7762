"""Step 1b, on any CPU: word and phone times of real recordings by PocketSphinx.

    python align_real.py --speech DIR --packages DIR --coffee-labels FILE --out DIR \
        --also prompts=DIR/asterisk actors=DIR/actors

Writes OUT/real.json (source, split, file, words with ends, phones) and copies the recordings that
it names. The recordings stay out of the repository. What cannot be aligned is not trained on.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from itertools import pairwise
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from common import KOKORO_PHONES, PHONE_ID, normalise
from prepare_text import number

LJ_HELD_OUT = 84  # the last ones by name


def spoken(text: str) -> str | None:
    """Normalised words of a transcript, numbers in words; None if one is long or has a symbol."""
    import random

    if re.search(r"\d{4,}|[%$&@]|\d[:.]\d", text):
        return None
    text = re.sub(r"\bBrue\b", "Brew", text)  # what the labelling model writes for "brew"
    return normalise(re.sub(r"\d+", lambda m: f" {number(int(m[0]), random.Random(0))} ", text))


def table(path: Path, text_column: int) -> list[tuple[str, str]]:
    """(file, text) rows of a tab-separated file."""
    rows = [line.rstrip("\n").split("\t") for line in open(path)]
    return [(r[0], r[text_column]) for r in rows if len(r) > text_column]


def jobs(speech: Path, coffee_labels: Path) -> list[dict[str, Any]]:
    """Every recording with its words and its split."""
    found = []

    def add(source: str, split: str, folder: str, rows: list[tuple[str, str]]) -> None:
        for name, text in rows:
            words = spoken(text)
            if words:
                found.append(
                    {"source": source, "split": split, "file": f"{folder}/{name}", "text": words}
                )

    lj = sorted(table(speech / "ljspeech/text.tsv", 1))
    add("lj", "train", "ljspeech", lj[:-LJ_HELD_OUT])
    add("lj", "test", "ljspeech", lj[-LJ_HELD_OUT:])
    folder = "librispeech_train_clean_251spk"
    add("librispeech", "train", folder, table(speech / folder / "pseudo_text.tsv", 2))
    add(
        "librispeech",
        "test",
        "librispeech_test_other",
        table(speech / "librispeech_test_other/text.tsv", 1),
    )
    add("coffee", "test", "coffee_commands", table(speech / "coffee_commands/pseudo_text.tsv", 2))
    add("coffee", "train", "coffee_commands", table(coffee_labels, 2))
    add("digits", "train", "fsdd", table(speech / "fsdd/text.tsv", 1))
    return found


def read(path: Path) -> np.ndarray:
    """(n,) float32 mono at 16 kHz."""
    wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return np.asarray(soxr.resample(wave.mean(1), rate, 16_000), np.float32)


_STATE: dict[str, Any] = {}


def decoder() -> Any:
    """One PocketSphinx decoder a process."""
    if "decoder" not in _STATE:
        from hibari.g2p import G2P
        from pocketsphinx import Decoder

        _STATE["decoder"] = Decoder(
            samprate=16_000,
            loglevel="FATAL",
            beam=1e-64,
            pbeam=1e-64,
            wbeam=1e-64,
            fwdflat=False,  # either second pass moves words by frames, and a phone path is then
            bestpath=False,  # rarely found: of 10 recordings 2 with them, 10 without
        )
        _STATE["g2p"] = G2P()
    return _STATE["decoder"]


def pronounce(word: str) -> str:
    """ARPAbet for a word that the dictionary lacks."""
    phones = [KOKORO_PHONES[c] for c in _STATE["g2p"](word) if c in KOKORO_PHONES]
    return " ".join(phones)


def align(job: dict[str, Any], speech: Path) -> dict[str, Any] | None:
    """The job with words [(end sample, word)], phones [(id, first, end in 10 ms)], limits.

    Where the search for phones finds no path, with silence added at both ends either, each word's
    phones of the dictionary share its time evenly.
    """
    wave = read(speech / job["file"])
    wave = wave / max(1e-3, float(np.abs(wave).max())) * 0.8
    frames = len(wave) // 160
    for margin in (0, 30):  # 10 ms frames
        words, phones = search(job["text"], wave, margin)
        if " ".join(w for w, _, _ in words) != job["text"]:
            return None
        if phones:
            break
    for word, start, stop in [] if phones else words:
        names = _STATE["decoder"].lookup_word(word).split()
        cuts = np.linspace(start, stop, len(names) + 1).astype(int).tolist()
        phones += [
            (PHONE_ID.get(name, 0), *span) for name, span in zip(names, pairwise(cuts), strict=True)
        ]

    def inside(frame: int) -> int:
        return min(max(frame - margin, 0), frames)

    phones = [(phone, inside(a), inside(b)) for phone, a, b in phones]
    speech_phones = [p for p in phones if p[0] and p[2] > p[1]]
    if not speech_phones:
        return None
    return {
        **job,
        "words": [(inside(stop) * 160, word) for word, _, stop in words],
        "phones": phones,
        "length": len(wave),
        "onset": speech_phones[0][1] * 160,
        "offset": speech_phones[-1][2] * 160,
    }


def search(
    text: str, wave: np.ndarray, margin: int
) -> tuple[list[tuple[str, int, int]], list[tuple[int, int, int]]]:
    """Words and phone ids with their first and end frames; none of what is not found."""
    quiet = np.random.default_rng(margin).standard_normal(len(wave) + 2 * margin * 160) * 3e-4
    pcm = (np.clip(np.pad(wave, margin * 160) + quiet, -1, 1) * 32767).astype("<i2").tobytes()
    ps = decoder()
    words, phones = [], []
    try:  # PocketSphinx raises RuntimeError when no path fits
        for word in text.split():
            if ps.lookup_word(word) is None:
                ps.add_word(word, pronounce(word), True)
        ps.set_align_text(text)
        ps.start_utt()
        ps.process_raw(pcm, no_search=False, full_utt=True)
        ps.end_utt()
        for found in ps.seg() or []:
            name = re.sub(r"\(\d+\)$", "", found.word)
            if name[0] not in "<[":
                words.append((name, int(found.start_frame), int(found.end_frame) + 1))
        ps.set_alignment()
        ps.start_utt()
        ps.process_raw(pcm, no_search=False, full_utt=True)
        ps.end_utt()
        for word in ps.get_alignment():
            for phone in word:
                stop = int(phone.start + phone.duration)
                phones.append((PHONE_ID.get(phone.name, 0), int(phone.start), stop))
    except RuntimeError:
        return words, []
    return words, phones


def plausible(row: dict[str, Any]) -> bool:
    """Whether phones of three words or more last 50 to 240 ms in the mean, none over a second."""
    if len(row["words"]) < 3:
        return True
    spans = [stop - start for phone, start, stop in row["phones"] if phone]
    return max(spans) <= 100 and 5 <= sum(spans) / len(spans) <= 24


def run(args: tuple[dict[str, Any], Path]) -> dict[str, Any] | None:
    row = align(*args)
    return row if row is not None and plausible(row) else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("--speech", "--packages", "--coffee-labels", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument(
        "--also",
        nargs="*",
        default=[],
        metavar="SOURCE=DIR",
        help="folders that prompts.py and actors.py wrote",
    )
    args = parser.parse_args()
    sys.path.insert(0, str(args.packages))
    args.out.mkdir(parents=True, exist_ok=True)
    todo = jobs(args.speech, args.coffee_labels)
    root = {job["file"]: args.speech for job in todo}
    for source, folder in ((name, Path(path)) for name, path in (x.split("=") for x in args.also)):
        for name, text in table(folder / "text.tsv", 1):
            file = f"{folder.name}/{name}"
            todo.append({"source": source, "split": "train", "file": file, "text": text})
            root[file] = folder.parent
    train = [(job, root[job["file"]]) for job in todo if job["split"] == "train"]
    with Pool(2) as pool:
        done = [row for row in pool.imap(run, train, 8) if row]
    done += [job for job in todo if job["split"] == "test"]
    for row in done:
        target = args.out / row["file"]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root[row["file"]] / row["file"], target)
    (args.out / "real.json").write_text(json.dumps(done))
    counts: dict[str, int] = {}
    for row in done:
        counts[f"{row['source']} {row['split']}"] = (
            counts.get(f"{row['source']} {row['split']}", 0) + 1
        )
    print(len(todo), "recordings;", counts)


if __name__ == "__main__":
    main()
