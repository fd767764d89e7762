"""Errors of a transcript against its reference, aligned and counted. Knows normalised text only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from voxmlx.errors import MissingExtraError
from voxmlx.evaluate.normalize import split_characters, split_words


@dataclass(frozen=True)
class Counts:
    """What an alignment of least edits holds; adds up over utterances."""

    hits: int = 0
    substitutions: int = 0
    insertions: int = 0
    deletions: int = 0

    @property
    def errors(self) -> int:
        """Edits."""
        return self.substitutions + self.insertions + self.deletions

    @property
    def reference(self) -> int:
        """Length of the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def rate(self) -> float:
        """Edits for each unit of the reference; all of them if the reference is empty."""
        return self.errors / max(1, self.reference)

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.hits + other.hits,
            self.substitutions + other.substitutions,
            self.insertions + other.insertions,
            self.deletions + other.deletions,
        )


class Edit(NamedTuple):
    """A run of an alignment: ``equal``, ``substitute``, ``insert`` or ``delete``."""

    kind: str
    reference: tuple[str, ...]
    hypothesis: tuple[str, ...]


def align(reference: str, hypothesis: str, *, characters: bool = False) -> list[Edit]:
    """Align two normalised texts with the least edits.

    Args:
        reference: What was said.
        hypothesis: What was recognised.
        characters: Compare characters, single spaces included, instead of words.

    Raises:
        MissingExtraError: If jiwer is not installed.
    """
    split = split_characters if characters else split_words
    expected, got = split(reference), split(hypothesis)
    if not expected:  # some versions of jiwer refuse an empty reference
        return [Edit("insert", (), tuple(got))] if got else []
    try:
        import jiwer
    except ModuleNotFoundError as error:
        raise MissingExtraError("Evaluation", "eval") from error
    if characters:
        chunks = jiwer.process_characters(reference, hypothesis).alignments[0]
    else:
        chunks = jiwer.process_words(" ".join(expected), " ".join(got)).alignments[0]
    return [
        Edit(
            chunk.type,
            tuple(expected[chunk.ref_start_idx : chunk.ref_end_idx]),
            tuple(got[chunk.hyp_start_idx : chunk.hyp_end_idx]),
        )
        for chunk in chunks
    ]


def count(edits: Iterable[Edit]) -> Counts:
    """Count what an alignment holds."""
    n = dict.fromkeys(("equal", "substitute", "insert", "delete"), 0)
    for edit in edits:
        n[edit.kind] += max(len(edit.reference), len(edit.hypothesis))
    return Counts(n["equal"], n["substitute"], n["insert"], n["delete"])


def word_counts(reference: str, hypothesis: str) -> Counts:
    """Word errors of normalised texts."""
    return count(align(reference, hypothesis))


def character_counts(reference: str, hypothesis: str) -> Counts:
    """Character errors of normalised texts."""
    return count(align(reference, hypothesis, characters=True))


def total(counts: Iterable[Counts]) -> Counts:
    """Sum over utterances."""
    return sum(counts, Counts())
