"""What cutting a long recording at its silences costs in words.

    python benchmarks/cuts.py MODEL MANIFEST [--files 40] [--minutes 5]

Recordings of a manifest are joined, with half a second between them, into long ones; each is
transcribed whole and in pieces. Word error rates are those of all words together.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from voxmlx import load
from voxmlx.audio.decode import SAMPLE_RATE, read_audio
from voxmlx.evaluate.manifest import Utterance, read_manifest
from voxmlx.evaluate.normalize import normalize
from voxmlx.evaluate.rates import Counts, word_counts
from voxmlx.streaming.cuts import cut_places, join_pieces


def joined(utterances: list[Utterance], minutes: float) -> list[tuple[np.ndarray, str]]:
    """Long recordings with their texts."""
    pause = np.zeros(SAMPLE_RATE // 2, np.float32)
    found, parts, texts, n = [], [], [], 0
    for utterance in utterances:
        samples = read_audio(utterance.audio)
        parts += [samples, pause]
        texts.append(utterance.text)
        n += len(samples) + len(pause)
        if n >= 60 * minutes * SAMPLE_RATE:
            found.append((np.concatenate(parts), " ".join(texts)))
            parts, texts, n = [], [], 0
    return [*found, (np.concatenate(parts), " ".join(texts))] if parts else found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("manifest")
    parser.add_argument("--files", type=int, default=40)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--pieces", type=float, nargs="+", default=[30.0, 10.0])
    args = parser.parse_args()
    model: Any = load(args.model)
    recordings = joined(read_manifest(args.manifest)[: args.files], args.minutes)
    counts: dict[str, Counts] = {}
    for samples, text in recordings:
        for piece_s in (None, *args.pieces):
            places = [] if piece_s is None else cut_places(samples, piece_s)
            results = model.generate(np.split(samples, places), sample_rate=SAMPLE_RATE)
            starts = [0.0, *(place / SAMPLE_RATE for place in places)]
            found = word_counts(normalize(text), normalize(join_pieces(results, starts).text))
            name = "whole" if piece_s is None else f"pieces of {piece_s:g} s"
            counts[name] = counts[name] + found if name in counts else found
            print(
                f"{len(samples) / SAMPLE_RATE:.0f} s {name}, {len(starts)} pieces: {found.rate:.1%}"
            )
    for name, total in counts.items():
        print(f"{name}: {total.errors} of {total.reference} words, {total.rate:.1%}")


if __name__ == "__main__":
    main()
