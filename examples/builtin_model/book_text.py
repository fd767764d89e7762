"""Step 1c, on any CPU: more lines for synthesis, from plain text files of public-domain prose.

    python book_text.py --books DIR --packages DIR --text text/text.tsv --avoid sets --out FILE

Writes rows as prepare_text.py does, all of the split `train`. Nothing that shares six words in a
row with a test sentence (rows of the split `test` in `--text`, every text.tsv below `--avoid`) is
kept. The tokenizer is left as it is.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
from collections.abc import Iterator
from multiprocessing import Pool
from pathlib import Path

from common import normalise
from prepare_text import STYLE_ROWS, phonemes, speakable

SHARED_WORDS = 6
LONGEST = 24  # words; longer sentences are cut at a comma
SPELLED_OUT = {"Mr.": "Mister", "Mrs.": "Missus", "Dr.": "Doctor", "St.": "Saint", "&": "and"}


def pieces(text: str) -> Iterator[str]:
    """Sentences and clauses of 3 to LONGEST words."""
    for mark, word in SPELLED_OUT.items():
        text = text.replace(mark, word)
    text = re.sub(r"_|\[.*?\]", "", text)
    for paragraph in re.split(r"\n\s*\n", text):
        paragraph = re.sub(r"\s+", " ", paragraph)
        for sentence in re.split(r"(?<=[.!?;:])[\"']?\s+", paragraph):
            part: list[str] = []
            for clause in re.split(r"(?<=,)\s+|--", sentence):
                words = clause.split()
                if part and len(part) + len(words) > LONGEST:
                    yield " ".join(part).rstrip(",;:")
                    part = []
                part += words
            if part:
                yield " ".join(part).rstrip(",;:")


def runs(words: str) -> set[tuple[str, ...]]:
    """Every run of SHARED_WORDS words, and the whole of a shorter line."""
    row = words.split()
    size = min(SHARED_WORDS, len(row))
    return {tuple(row[i : i + size]) for i in range(len(row) - size + 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("--books", "--packages", "--text", "--avoid", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--limit", type=int, default=100_000)
    args = parser.parse_args()
    sys.path.insert(0, str(args.packages))
    old = [line.rstrip("\n").split("\t") for line in open(args.text)]
    banned: set[tuple[str, ...]] = set()
    for row in old:
        if row[0] == "test":
            banned |= runs(row[3])
    for path in args.avoid.rglob("text.tsv"):
        for line in path.read_text().splitlines():
            banned |= runs(normalise(line.split("\t")[1]))
    known = {row[3] for row in old}
    rng = random.Random(3)
    kept: list[str] = []
    for path in sorted(args.books.glob("*.txt")):
        lines = {line for piece in pieces(path.read_text()) if (line := speakable(piece))}
        good = []
        for line in sorted(lines):
            words = normalise(line)
            if len(words.split()) >= 3 and words not in known and not runs(words) & banned:
                good.append(line)
        print(path.name, len(lines), len(good), flush=True)
        kept += good
    rng.shuffle(kept)
    kept = kept[: args.limit]
    british = [rng.random() < 0.3 for _ in kept]
    with Pool(2) as pool:
        strings = pool.map(phonemes, list(zip(kept, british, strict=True)), 256)
    count = 0
    with open(args.out, "w") as file:
        for line, b, string in zip(kept, british, strings, strict=True):
            if string is not None and len(string) <= STYLE_ROWS - 2:
                count += 1
                print("train", "b" if b else "a", string, normalise(line), sep="\t", file=file)
    print(f"{count} of {len(kept)} lines")


if __name__ == "__main__":
    main()
