"""What context biasing finds, and what it costs.

    python benchmarks/biasing.py --model tiny --data RECORDINGS

Rare words that the model gets wrong are given to it as phrases, together with as many words that
are never said. Printed are, for each strength: how many of the wrong rare words come out right, how
often a phrase is written where it was not said, and the error rate of all other words.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Iterable, Sequence

from voxmlx.engine.files import transcribe_files
from voxmlx.evaluate.manifest import Utterance, read_manifest
from voxmlx.evaluate.normalize import normalize
from voxmlx.evaluate.rates import Counts, Edit, align, count, total
from voxmlx.pipeline import Pipeline, load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--data", required=True, help="anything that 'voxmlx eval' reads")
    parser.add_argument("--delay", type=int)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--phrases", type=int, default=50, help="phrases given, half never said")
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.5, 1.0, 1.5, 2.0])
    arguments = parser.parse_args()
    pipeline = load(arguments.model)
    assert isinstance(pipeline, Pipeline)
    utterances = read_manifest(arguments.data)
    common = Counter(word for u in utterances for word in words_of(u.text))
    utterances = utterances[: arguments.limit]

    def transcribe(phrases: Sequence[str], strength: float) -> dict[str, str]:
        files = ((u.id, u.audio) for u in utterances)
        found = transcribe_files(
            pipeline,
            files,
            rows=arguments.batch_size,
            transcription_delay_ms=arguments.delay,
            context_bias=phrases,
            bias_strength=strength,
        )
        return {done.key: done.result.text for done in found if done.result is not None}

    plain = transcribe((), 1.0)
    wrong = misrecognised(utterances, plain, common)[: arguments.phrases // 2]
    said = {word for u in utterances for word in words_of(u.text)}
    unsaid = sorted({word for word in common if common[word] == 1 and len(word) > 4} - said)
    random.Random(0).shuffle(unsaid)
    phrases = wrong + unsaid[: arguments.phrases - len(wrong)]
    print(f"{len(utterances)} recordings; {len(wrong)} wrong rare words of {len(phrases)} phrases")
    print("| strength | recovered | of | false insertions | WER of other words % |")
    print("|---|---|---|---|---|")
    report("off", utterances, plain, wrong, phrases)
    for strength in arguments.strengths:
        report(f"{strength:g}", utterances, transcribe(phrases, strength), wrong, phrases)


def words_of(text: str) -> list[str]:
    return normalize(text, "en", "basic").split()


def misrecognised(
    utterances: Iterable[Utterance], texts: dict[str, str], common: Counter[str]
) -> list[str]:
    """Words of five letters and more, said once in the data, that the model got wrong."""
    found = []
    for u in utterances:
        for edit in align(" ".join(words_of(u.text)), " ".join(words_of(texts[u.id]))):
            if edit.kind in ("substitute", "delete"):
                found += [w for w in edit.reference if common[w] == 1 and len(w) >= 5]
    return found


def report(
    name: str,
    utterances: Iterable[Utterance],
    texts: dict[str, str],
    wrong: Sequence[str],
    phrases: Sequence[str],
) -> None:
    """Print a row of the table."""
    targets, listed = set(wrong), set(phrases)
    n_right = n_false = 0
    others: list[Counts] = []
    for u in utterances:
        edits = align(" ".join(words_of(u.text)), " ".join(words_of(texts[u.id])))
        for kind, reference, hypothesis in edits:
            if kind == "equal":
                n_right += len(targets & set(reference))
            else:
                n_false += sum(word in listed for word in hypothesis)
        others.append(without(targets, count(edits), edits))
    rate = 100 * total(others).rate
    print(f"| {name} | {n_right} | {len(targets)} | {n_false} | {rate:.2f} |", flush=True)


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
