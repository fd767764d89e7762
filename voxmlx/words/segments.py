"""Segments from words: sentences, or what stands between two pauses.

Knows words and their times; neither tokens nor subtitles.
"""

from __future__ import annotations

from collections.abc import Iterable

from voxmlx.types import Segment, Word
from voxmlx.words.characters import ends_clause, ends_sentence, join_words
from voxmlx.words.grouper import MAX_WORD_S

PAUSE_S = 0.8
"""A longer silence between two words ends a segment."""
SOFT_S, SOFT_CHARS = 15.0, 200
"""From here on a comma ends a segment."""
HARD_S, HARD_CHARS = 30.0, 400
"""Here a segment ends anyway (30 s is the window of most other recognisers)."""


class Segmenter:
    """Gathers words into segments, each given out as soon as it is complete and never empty."""

    def __init__(self) -> None:
        self._words: list[Word] = []
        self._n_chars = 0

    def add(self, word: Word) -> list[Segment]:
        """Take the next word and return the segments that are complete now."""
        done = []
        if self._words and word.start_s - self._words[-1].end_s > PAUSE_S:
            done = self.finalize()
        self._words.append(word)
        self._n_chars += len(word.text) + 1
        length_s = word.end_s - self._words[0].start_s
        soft = length_s >= SOFT_S or self._n_chars >= SOFT_CHARS
        hard = length_s >= HARD_S or self._n_chars >= HARD_CHARS
        if hard or ends_sentence(word.text) or (soft and ends_clause(word.text)):
            done += self.finalize()
        return done

    def advance(self, settled_s: float) -> list[Segment]:
        """Return the open segment if only a pause can follow it.

        Args:
            settled_s: No later word ends before this time (:attr:`WordGrouper.settled_s`). Calling
                this or not changes when segments come, never what they hold.
        """
        if self._words and settled_s - self._words[-1].end_s > PAUSE_S + MAX_WORD_S:
            return self.finalize()
        return []

    def finalize(self) -> list[Segment]:
        """Return what is open. More words may follow."""
        words, self._words, self._n_chars = tuple(self._words), [], 0
        if not words:
            return []
        return [Segment(join_words(words), words[0].start_s, words[-1].end_s, words)]


def segments_of(words: Iterable[Word]) -> list[Segment]:
    """Split a finished list of words into segments."""
    segmenter = Segmenter()
    done = [segment for word in words for segment in segmenter.add(word)]
    return done + segmenter.finalize()
