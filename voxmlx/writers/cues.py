"""Subtitle cues from words: when a text is shown, and how it is broken into lines.

Knows words and their times; not how a file format spells a cue.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import accumulate

from voxmlx.types import Word
from voxmlx.words.characters import ends_clause, ends_sentence, join_words
from voxmlx.words.grouper import MAX_WORD_S
from voxmlx.words.segments import PAUSE_S

# Limits of the Netflix timed text guide: 42 characters a line, two lines, at most 7 s. Wide
# characters count twice, which gives about its limits for Chinese, Japanese and Korean.
MAX_WIDTH = 42
MAX_LINES = 2
MAX_CUE_S = 7.0
MIN_CUE_S = 1.0
READING_CPS = 17.0
"""Characters a second that a reader follows (same guide, adult programmes in most languages)."""
NEARLY_FULL = 60
"""A cue of this width ends at a comma."""
_SHORTEST_S = 0.1


@dataclass(frozen=True)
class Cue:
    """A text on the screen from ``start_s`` to ``end_s``, one or two lines."""

    start_s: float
    end_s: float
    lines: tuple[str, ...]


class CueBuilder:
    """Gathers words into cues, each given out as soon as it is complete.

    A cue breaks between words: at a pause, at the end of a sentence, at a comma when it is nearly
    full, and where the next word no longer fits. It stays long enough to be read where the next one
    leaves it time. Cues never overlap.
    """

    def __init__(self) -> None:
        self._words: list[Word] = []
        self._last_end_s = 0.0

    def add(self, word: Word) -> list[Cue]:
        """Take the next word and return the cues that are complete now."""
        cues = []
        for part in _parts(word):
            if self._words and self._breaks_before(part):
                cues += self._close(part.start_s)
            self._words.append(part)
        return cues

    def advance(self, settled_s: float) -> list[Cue]:
        """Return the open cue if nothing that follows can change it.

        Args:
            settled_s: No later word ends before this time (:attr:`WordGrouper.settled_s`). Calling
                this or not changes when cues come, never what they hold.
        """
        if not self._words:
            return []
        next_start_s = settled_s - MAX_WORD_S
        pause = next_start_s - self._words[-1].end_s > PAUSE_S
        return self._close(next_start_s) if pause and next_start_s >= self._wanted_end_s() else []

    def finalize(self, duration_s: float | None = None) -> list[Cue]:
        """Return what is open. More words may follow.

        Args:
            duration_s: End of the audio; a cue does not linger beyond it.
        """
        return self._close(math.inf if duration_s is None else duration_s)

    def _breaks_before(self, word: Word) -> bool:
        first, last = self._words[0], self._words[-1]
        if word.start_s - last.end_s > PAUSE_S or word.end_s - first.start_s > MAX_CUE_S:
            return True
        if _break_lines([*self._words, word]) is None:
            return True
        if ends_sentence(last.text) and last.end_s - first.start_s >= MIN_CUE_S:
            return True
        return ends_clause(last.text) and display_width(join_words(self._words)) >= NEARLY_FULL

    def _wanted_end_s(self) -> float:
        start_s = self._words[0].start_s
        reading_s = display_width(join_words(self._words)) / READING_CPS
        wanted_s = start_s + min(max(reading_s, MIN_CUE_S), MAX_CUE_S)
        return max(self._words[-1].end_s, wanted_s)

    def _close(self, next_start_s: float) -> list[Cue]:
        if not self._words:
            return []
        start_s = max(self._words[0].start_s, self._last_end_s)
        end_s = max(min(self._wanted_end_s(), next_start_s), self._words[-1].end_s)
        end_s = max(end_s, start_s + _SHORTEST_S)
        lines = _break_lines(self._words) or (join_words(self._words),)
        self._words = []
        self._last_end_s = end_s
        return [Cue(start_s, end_s, lines)]


def cues_of(words: Iterable[Word], duration_s: float | None = None) -> list[Cue]:
    """Make the cues of a finished list of words."""
    builder = CueBuilder()
    cues = [cue for word in words for cue in builder.add(word)]
    return cues + builder.finalize(duration_s)


def display_width(text: str) -> int:
    """Columns of a text: two for a wide (CJK) character, one for any other."""
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def _parts(word: Word) -> list[Word]:
    """Drop control characters, and cut a word that is wider than a line into words."""
    pieces, width = [""], 0
    for char in word.text:
        if unicodedata.category(char) == "Cc":
            continue
        width += display_width(char)
        if width > MAX_WIDTH:
            pieces.append("")
            width = display_width(char)
        pieces[-1] += char
    step_s = (word.end_s - word.start_s) / len(pieces)
    return [
        replace(
            word,
            text=piece,
            start_s=word.start_s + i * step_s,
            end_s=word.start_s + (i + 1) * step_s,
            space_before=word.space_before and i == 0,
        )
        for i, piece in enumerate(pieces)
        if piece
    ]


def _break_lines(words: list[Word]) -> tuple[str, ...] | None:
    """Break words into lines, the two about equal; ``None`` if they do not fit."""
    ends = list(accumulate(display_width(word.text) + word.space_before for word in words))
    if ends[-1] - words[0].space_before <= MAX_WIDTH:
        return (join_words(words),)
    best: tuple[int, int] | None = None
    for i in range(1, len(words)):
        first = ends[i - 1] - words[0].space_before
        second = ends[-1] - ends[i - 1] - words[i].space_before
        if max(first, second) > MAX_WIDTH:
            continue
        # A break after a comma is worth ten columns of imbalance.
        cost = abs(first - second) - (10 if ends_clause(words[i - 1].text) else 0)
        best = min(best or (cost, i), (cost, i))
    if best is None:
        return None
    return join_words(words[: best[1]]), join_words(words[best[1] :])
