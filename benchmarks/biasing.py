"""What context biasing finds, and what it costs.

    python -m benchmarks.biasing --model tiny --data SET [SET ...] --corpus TEXT [TEXT ...]

A word is rare if it has five letters or more, is said once in the data, and stands in at most ten
lines of the corpus. The recordings are halved by their names; one half served to choose the
constants, the other one is reported. The phrases given are the rare words that the model gets
wrong in that half, and as many rare words that are said in the other half only. Printed are, for
each strength, how many of the wrong words come out right, how often a phrase is written where it
was not said, the error rate of all other words with the interval of its change, and the time of the
processor.
"""

from __future__ import annotations

import argparse
import random
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.encoded import Float32Array, decode_all, encode_files
from voxmlx.evaluate.bootstrap import compare
from voxmlx.evaluate.manifest import Utterance, read_manifest
from voxmlx.evaluate.normalize import normalize
from voxmlx.evaluate.rates import Counts, Edit, align, count, total
from voxmlx.generation.bias import make_bias
from voxmlx.pipeline import Pipeline, load

LETTERS = 5
LINES = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--data", nargs="+", required=True, help="what 'voxmlx eval' reads")
    parser.add_argument("--corpus", nargs="*", type=Path, default=[], help="text, by lines")
    parser.add_argument("--half", type=int, choices=(0, 1), default=1, help="1 is held out")
    parser.add_argument("--limit", type=int, help="take only the first recordings of each set")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--strengths", type=float, nargs="+", default=[1.0])
    arguments = parser.parse_args()
    started = time.monotonic()
    pipeline = load(arguments.model)
    assert isinstance(pipeline, Pipeline)
    everything = [
        replace(u, id=f"{Path(place).name}/{u.id}")
        for place in arguments.data
        for u in read_manifest(place)[: arguments.limit]
    ]
    rare = rare_words(everything, arguments.corpus)
    halves: tuple[list[Utterance], list[Utterance]] = ([], [])
    for u in everything:
        halves[zlib.crc32(u.id.encode()) % 2].append(u)
    here, there = halves[arguments.half], halves[1 - arguments.half]
    run = Run(pipeline, here, arguments.rows)
    plain = run.texts((), 1.0)
    wrong = misrecognised(here, plain, rare)
    unsaid = sorted(rare & {word for u in there for word in words_of(u.text)})
    phrases = wrong + random.Random(0).sample(unsaid, min(len(wrong), len(unsaid)))
    print(f"{len(here)} recordings; {len(wrong)} wrong rare words of {len(phrases)} phrases")
    print("| strength | recovered | of | false | other words, WER % | change, points | 95 % | s |")
    print("|---|---|---|---|---|---|---|---|")
    before = Scores.of(here, plain, wrong, phrases)
    print(f"{before.row('off', before)} {run.seconds:.0f} |", flush=True)
    for strength in arguments.strengths:
        scores = Scores.of(here, run.texts(phrases, strength), wrong, phrases)
        print(f"{scores.row(f'{strength:g}', before)} {run.seconds:.0f} |", flush=True)
    print(f"{time.monotonic() - started:.0f} s")


class Run:
    """Recordings, encoded once; ``seconds`` is the processor time of the last decoding."""

    def __init__(self, pipeline: Pipeline, utterances: Sequence[Utterance], rows: int):
        self._pipeline = pipeline
        self._rows = rows
        self._delay_ms = pipeline.config.delay_ms
        self.seconds = 0.0
        files = {u.id: u.audio for u in utterances}
        self._encoded: dict[str, Float32Array] = encode_files(pipeline, files, self._delay_ms)

    def texts(self, phrases: Sequence[str], strength: float) -> dict[str, str]:
        """What the model hears when it expects some phrases, by name."""
        bias = make_bias(phrases, self._pipeline.tokenizer, strength)
        delay = self._delay_ms
        started = time.process_time()
        found = dict(
            decode_all(self._pipeline, self._encoded, delay, delay, bias=bias, rows=self._rows)
        )
        self.seconds = time.process_time() - started
        return found


@dataclass(frozen=True)
class Scores:
    """What came out; the counts are those of the words that are no target."""

    n_targets: int
    n_right: int
    n_false: int
    others: list[Counts]

    @classmethod
    def of(
        cls,
        utterances: Iterable[Utterance],
        texts: Mapping[str, str],
        wrong: Sequence[str],
        phrases: Sequence[str],
    ) -> Scores:
        """Compare texts with their references."""
        targets, listed = set(wrong), set(phrases)
        n_right = n_false = 0
        others = []
        for u in utterances:
            edits = align(" ".join(words_of(u.text)), " ".join(words_of(texts[u.id])))
            for kind, reference, hypothesis in edits:
                if kind == "equal":
                    n_right += len(targets & set(reference))
                else:
                    n_false += sum(word in listed for word in hypothesis)
            others.append(without(targets, count(edits), edits))
        return cls(len(targets), n_right, n_false, others)

    def row(self, name: str, before: Scores) -> str:
        """A row of the table."""
        change = compare(
            [c.errors for c in before.others],
            [c.errors for c in self.others],
            [c.reference for c in self.others],
        )
        rate = 100 * total(self.others).rate
        points = f"{100 * change.value:+.2f} | {100 * change.low:+.2f} to {100 * change.high:+.2f}"
        return (
            f"| {name} | {self.n_right} | {self.n_targets} | {self.n_false} | {rate:.2f} "
            f"| {points} |"
        )


def words_of(text: str) -> list[str]:
    return normalize(text, "en", "basic").split()


def rare_words(utterances: Iterable[Utterance], corpus: Iterable[Path]) -> set[str]:
    said = Counter(word for u in utterances for word in words_of(u.text))
    lines: Counter[str] = Counter()
    for path in corpus:
        for line in path.read_text(encoding="utf-8").splitlines():
            lines.update(set(words_of(line)))
    return {w for w in said if said[w] == 1 and len(w) >= LETTERS and lines[w] <= LINES}


def misrecognised(
    utterances: Iterable[Utterance], texts: Mapping[str, str], rare: set[str]
) -> list[str]:
    """Rare words that the model got wrong."""
    found = []
    for u in utterances:
        for edit in align(" ".join(words_of(u.text)), " ".join(words_of(texts[u.id]))):
            if edit.kind in ("substitute", "delete"):
                found += [word for word in edit.reference if word in rare]
    return found


def without(targets: set[str], counts: Counts, edits: Iterable[Edit]) -> Counts:
    """Counts less what concerns the target words themselves."""
    hits = sum(w in targets for e in edits if e.kind == "equal" for w in e.reference)
    missed = sum(w in targets for e in edits if e.kind == "substitute" for w in e.reference)
    lost = sum(w in targets for e in edits if e.kind == "delete" for w in e.reference)
    return Counts(
        counts.hits - hits,
        counts.substitutions - missed,
        counts.insertions,
        counts.deletions - lost,
    )


if __name__ == "__main__":
    main()
