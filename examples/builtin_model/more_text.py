"""Step 1d, on any CPU: many more lines, for the decoder's words, from packages that hold prose.

    python more_text.py --library DIR --packages DIR --text text/text.tsv --keep text.tsv \
        --avoid sets avoid --out DIR --spoken 1.3e6

`--library` holds the unpacked packages of corpora.SOURCES (README.md names them). Writes
words.tsv, all new lines without phonemes, for engines that need none, and more.tsv: new lines with
phonemes, among them every rare word, what is told before what is looked up, with one row of
`--keep` to five of them, then the rest of `--keep`. Nothing that shares six words in a row with a
test sentence is kept.
"""

from __future__ import annotations

import argparse
import collections
import gzip
import json
import random
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from book_text import pieces, runs
from common import normalise
from corpora import SOURCES, Source
from prepare_text import STYLE_ROWS, phonemes, speakable

RARE = 3  # a word is to have so many lines with phonemes
FEW = 8  # and so many without
COMMON = 150  # so many of the commonest words tell English from other languages
JOINED = 0.4  # so many pieces go on with the one that follows, where both are short enough
LONGEST = 27  # words of pieces joined
FIRST_OLD = 5  # among the first lines of more.tsv, one old line to so many new ones
SHORT_FORMS = re.compile(r"\w+('s|n't|'ll|'ve|'re|'d|'m|s')|o'clock|o'er|ma'am|e'en|ne'er")
PLAIN = str.maketrans({"’": "'", "‘": "'", "`": "'", "“": '"', "”": '"', "—": "--", "–": "-"})


class Filter:
    """What a line has to be: English, of known words, new, and far from the test sentences."""

    def __init__(self, old: list[list[str]], banned: set[tuple[str, ...]], assets: Path) -> None:
        counts = collections.Counter(word for row in old for word in row[3].split())
        self.common = {word for word, _ in counts.most_common(COMMON)}
        self.words = {word for word, n in counts.items() if n > 1}
        for path in assets.glob("lexicon_*.json.gz"):
            self.words |= {word.lower() for word in json.loads(gzip.open(path).read())}
        self.seen = {row[3] for row in old}
        self.banned = banned

    def fits(self, line: str, names: bool) -> bool:
        """Whether a line is to be kept; it counts as seen from then on.

        Args:
            line: as prepare_text.speakable gives it.
            names: whether it may hold one unknown word with a capital letter, not its first.
        """
        words = normalise(line)
        row = words.split()
        if not 3 <= len(row) <= 30 or words in self.seen:
            return False
        if sum(word in self.common for word in row) < 0.2 * len(row):
            return False
        unknown = [word for word in row if not self.knows(word)]
        if len(unknown) > names or any(f" {word.title()}" not in line for word in unknown):
            return False
        if runs(words) & self.banned:
            return False
        self.seen.add(words)
        return True

    def knows(self, word: str) -> bool:
        """Whether the word, or what stands before its 's, is in a lexicon or in the old lines."""
        if "'" in word and not SHORT_FORMS.fullmatch(word):
            return False
        return word in self.words or word.endswith("'s") and word[:-2] in self.words


def joined(passage: str, rng: random.Random) -> Iterator[str]:
    """The pieces of a passage, some of them with their next one."""
    held = ""
    for piece in pieces(passage.translate(PLAIN)):
        if held and len(held.split()) + len(piece.split()) <= LONGEST and rng.random() < JOINED:
            held = f"{held.rstrip('.,;: ')}, {piece}"
            continue
        yield held
        held = piece
    yield held


def collect(source: Source, library: Path, wanted: Filter, rng: random.Random) -> list[str]:
    """All lines of a source, as prepare_text.speakable gives them, shuffled."""
    lines: list[str] = []
    for path in sorted(library.glob(source.pattern)):
        for passage in source.read(path):
            for piece in joined(passage, rng):
                line = speakable(piece)
                if line and wanted.fits(line, source.names):
                    lines.append(line)
    rng.shuffle(lines)
    return lines


def choose(
    lines: list[str], counts: collections.Counter[str], times: int, limit: float
) -> list[str]:
    """Lines of about `limit` words: first those with words that are still rare, then others.

    Args:
        lines: the lines, better ones first.
        counts: how many lines each word has already; the chosen lines are added to it.
        times: a word with fewer lines is rare.
        limit: how many words the chosen lines may have.
    """
    rare, others, used = _take(
        lines, counts, limit, lambda row: any(counts[word] < times for word in row)
    )
    rest, _, more = _take(others, counts, limit - used, lambda row: True)
    chosen = rare + rest
    print(f"  {len(chosen)} of {len(lines)} lines, {len(rare)} for rare words, {used + more} words")
    return chosen


def _take(
    lines: list[str],
    counts: collections.Counter[str],
    limit: float,
    wanted: Callable[[list[str]], bool],
) -> tuple[list[str], list[str], int]:
    """Lines whose words are wanted until `limit` is reached, the others, and the words taken."""
    taken, left, total = [], [], 0
    for i, line in enumerate(lines):
        if total >= limit:
            return taken, left + lines[i:], total
        row = normalise(line).split()
        if wanted(row):
            taken.append(line)
            counts.update(set(row))
            total += len(row)
        else:
            left.append(line)
    return taken, left, total


def mixed(new: list[str], old: list[str]) -> list[str]:
    """New rows with one old row to FIRST_OLD of them, then the old rows that are left."""
    rows, rest = [], iter(old)
    for i, row in enumerate(new):
        rows.append(row)
        if i % FIRST_OLD == FIRST_OLD - 1:
            rows += [r for r in [next(rest, None)] if r is not None]
    return rows + list(rest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("--library", "--packages", "--text", "--keep", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--avoid", type=Path, nargs="+", required=True)
    parser.add_argument("--spoken", type=float, default=1.3e6, help="new words with phonemes")
    parser.add_argument("--share", type=float, default=1.0, help="of each source's words to take")
    args = parser.parse_args()
    sys.path.insert(0, str(args.packages))
    rng = random.Random(6)
    old = [line.rstrip("\n").split("\t") for line in open(args.text)]
    banned = {run for row in old if row[0] == "test" for run in runs(row[3])}
    for path in (p for folder in args.avoid for p in folder.rglob("text.tsv")):
        for line in path.read_text().splitlines():
            banned |= runs(normalise(line.split("\t")[1]))
    wanted = Filter(old, banned, args.packages / "hibari" / "assets")
    counts: collections.Counter[str] = collections.Counter()
    told: list[str] = []
    looked_up: list[str] = []
    for source in SOURCES:
        print(source.name, flush=True)
        lines = collect(source, args.library, wanted, rng)
        lines = choose(lines, counts, FEW, source.words * args.share)
        (told if source.told else looked_up).extend(lines)
    keep = args.keep.read_text().splitlines()
    known = collections.Counter({word: RARE for word, n in counts.items() if n < RARE})
    known.update(word for row in keep for word in set(row.split("\t")[3].split()))
    spoken = choose(told + looked_up, known, RARE, args.spoken)
    rng.shuffle(spoken)
    told_first = set(told)
    spoken.sort(key=lambda line: line not in told_first)
    rows = []
    for line in spoken:
        british = rng.random() < 0.3
        said = phonemes((line, british))
        if said is not None and len(said) <= STYLE_ROWS - 2:
            rows.append("\t".join(["train", "b" if british else "a", said, normalise(line)]))
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "more.tsv").write_text("\n".join(mixed(rows, keep)) + "\n")
    found = told + looked_up
    rng.shuffle(found)
    with open(args.out / "words.tsv", "w") as file:
        for line in found:
            print("train", "a", "", normalise(line), sep="\t", file=file)
    print(f"{len(rows)} new rows with phonemes, {len(found)} without")


if __name__ == "__main__":
    main()
