"""Words from token ids, with times and confidence.

A token is *placed* on a grid of 80 ms, so its index is a clock. ``[STREAMING_WORD]`` announces a
group of words that fell due together; the first text token of the group at index ``k`` means that
its first word ended in the frame ``(80 (k - 1), 80 k]`` ms of the audio, at any delay. The middle
of that frame is the estimate of the end. Later words of a group carry no clock of their own: they
ended after the word before them and before their own token. The stream does not say where a word
starts.
"""

from __future__ import annotations

import codecs
import math
import re
from dataclasses import dataclass

from voxmlx.tokenizer import Tokenizer
from voxmlx.types import Word
from voxmlx.words.characters import has_letters, is_opening, is_unspaced, sticks

# Length of a spoken word. The line for letters lies between those through forced alignments of
# read sentences and of commands (benchmarks/word_times.py); a CJK character is a syllable.
WORD_BASE_S = 0.02
LETTER_S = 0.075
UNSPACED_LETTER_S = 0.2
MAX_WORD_S = 1.0
PAUSE_SLACK_S = 0.3
"""A gap that is longer than the estimated word by more than this holds a pause. Of 0.2, 0.3 and 0.4
this had the smallest error of starts on recordings of people."""
MAX_WORD_CHARS = 200
"""A word that grows beyond this is cut, so that text without spaces needs no endless memory."""
_MIN_PROBABILITY = 1e-12

_RUNS = re.compile(r"\s+|\S+")


@dataclass
class _OpenWord:
    """A word that may still grow. ``k`` is the index of its first token."""

    text: str
    k: int
    starts_group: bool
    space_before: bool
    log_probability: float
    n_tokens: int

    def extend(self, text: str, log_probability: float, n_tokens: int) -> None:
        self.text += text
        self.log_probability += log_probability
        self.n_tokens += n_tokens

    @property
    def confidence(self) -> float | None:
        if self.n_tokens == 0 or math.isnan(self.log_probability):
            return None
        return math.exp(self.log_probability / self.n_tokens)


class WordGrouper:
    """Groups token ids into words, each given out as soon as it cannot change.

    A word starts at whitespace, after ``[STREAMING_WORD]``, and at every token of a script without
    spaces; never inside a character. Punctuation alone sticks to the word before it, an opening
    bracket or quote to the word after it. A word is finished when letters of the next one come, at
    a pad, or by :meth:`finalize`. Joined as written (:func:`voxmlx.words.join_words`), the words
    give the text back, up to the kind of whitespace.

    ``confidence`` of a word is the geometric mean of the probabilities of its tokens, so long words
    compare with short ones; it is ``None`` if one token came without.

    Args:
        tokenizer: Gives the bytes of ids.
        token_ms: Milliseconds between tokens.
        duration_s: End of the audio; times do not exceed it. May be set later, when it is known.
    """

    def __init__(
        self, tokenizer: Tokenizer, token_ms: float = 80.0, duration_s: float | None = None
    ):
        self.duration_s = duration_s
        self._tokenizer = tokenizer
        self._token_ms = token_ms
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held: _OpenWord | None = None  # complete, but punctuation may still join it
        self._word: _OpenWord | None = None
        self._space = True
        self._group_starts = True
        # Index, log-probability, number of tokens without a letter yet: space, half characters.
        self._lead: tuple[int, float, int] | None = None
        self._next_k = 0
        self._last_end_s = 0.0

    @property
    def settled_s(self) -> float:
        """No word that is still to come ends before this time."""
        if self._word is not None or self._lead is not None or not self._group_starts:
            return self._last_end_s
        return max(self._last_end_s, self._clamp(self._due_s(self._next_k)))

    def add(self, k: int, token_id: int, confidence: float | None = None) -> list[Word]:
        """Take the next token.

        Args:
            k: Index of the token, counted from the first output position of the stream; an index
                may be skipped, never repeated.
            token_id: Its id.
            confidence: Its probability.

        Returns:
            The words that this token finished, oldest first.
        """
        self._next_k = k + 1
        data = self._tokenizer.token_bytes(token_id)
        if not data:
            return self._end_group(token_id)
        log_probability = (
            math.nan if confidence is None else math.log(max(confidence, _MIN_PROBABILITY))
        )
        n_tokens = 1
        if self._lead is not None:
            k = self._lead[0]
            log_probability += self._lead[1]
            n_tokens += self._lead[2]
        text = self._decoder.decode(data)
        if not text.strip():
            self._lead = (k, log_probability, n_tokens)
            self._space |= bool(text)
            return []
        self._lead = (k, 0.0, 0) if self._inside_character else None
        words: list[Word] = []
        for run in _RUNS.findall(text):
            if run.isspace():
                self._space = True
            else:
                words += self._place(self._open(run, k, log_probability, n_tokens))
        return words

    def finalize(self, k: int | None = None) -> list[Word]:
        """End the text and return the words that were still open. More tokens may follow.

        Args:
            k: Index of the next token, if it is not the one after the last.
        """
        if k is not None:
            self._next_k = k
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        words = self._place(self._open(rest, *self._lead)) if rest and self._lead else []
        self._lead = None
        self._group_starts = True
        return words + self._close()

    @property
    def _inside_character(self) -> bool:
        return self._decoder.getstate()[0] != b""

    def _open(self, text: str, k: int, log_probability: float, n_tokens: int) -> _OpenWord:
        """Make what could be a word of the next run of characters."""
        word = _OpenWord(text, k, self._group_starts, self._space, log_probability, n_tokens)
        self._space = self._group_starts = False
        return word

    def _end_group(self, token_id: int) -> list[Word]:
        """Take a control token: a word mark starts a group, any other ends all open words."""
        self._group_starts = True
        if self._inside_character:
            return []
        self._lead = None
        return [] if token_id == self._tokenizer.word_id else self._close()

    def _place(self, new: _OpenWord) -> list[Word]:
        """Join a run of characters to the open word, or start the next one with it."""
        word, finished = self._word, []
        if word is None:
            self._word = new
        elif len(word.text) + len(new.text) > MAX_WORD_CHARS:
            finished = self._close()
            self._word = new
        elif not has_letters(word.text):
            finished = self._place_after_punctuation(word, new)
        elif new.space_before or self._breaks(word, new):
            self._held, self._word = word, new
        else:
            word.extend(new.text, new.log_probability, new.n_tokens)
        if self._held is not None and self._word is not None and has_letters(self._word.text):
            finished.append(self._release(self._held))
            self._held = None
        return finished

    def _place_after_punctuation(self, word: _OpenWord, new: _OpenWord) -> list[Word]:
        """Place a run after a word that is punctuation alone so far."""
        if not new.space_before:
            word.extend(new.text, new.log_probability, new.n_tokens)
            return []
        if (self._held is None and word.space_before) or is_opening(word.text[-1]):
            word.extend(" " + new.text, new.log_probability, new.n_tokens)
            return []
        finished = self._close()
        self._word = new
        return finished

    def _breaks(self, word: _OpenWord, new: _OpenWord) -> bool:
        """Whether a run without a space before it starts a word nevertheless."""
        if sticks(new.text[0]):
            return False
        return new.starts_group or is_unspaced(new.text[0]) or is_unspaced(word.text[-1])

    def _close(self) -> list[Word]:
        """Finish every open word; punctuation alone joins the word before it."""
        held, word = self._held, self._word
        self._held = self._word = None
        if held is not None and word is not None:
            room = MAX_WORD_CHARS - len(held.text) - len(word.text) > 0
            if room and not has_letters(word.text):
                gap = " " if word.space_before else ""
                held.extend(gap + word.text, word.log_probability, word.n_tokens)
                word = None
        return [self._release(open_word) for open_word in (held, word) if open_word is not None]

    def _release(self, word: _OpenWord) -> Word:
        """Give a finished word its times."""
        spoken_s = _spoken_s(word.text)
        end_s = self._due_s(word.k)
        if not word.starts_group:
            end_s = min(end_s, self._last_end_s + spoken_s)
        end_s = max(self._clamp(end_s), self._last_end_s)
        start_s = self._last_end_s
        if end_s - start_s > spoken_s + PAUSE_SLACK_S:
            start_s = end_s - spoken_s
        self._last_end_s = end_s
        return Word(word.text, start_s, end_s, word.confidence, word.space_before)

    def _clamp(self, time_s: float) -> float:
        return time_s if self.duration_s is None else min(time_s, self.duration_s)

    def _due_s(self, k: int) -> float:
        """End of a group's first word whose first text token has index ``k``."""
        return max(0.0, (k - 0.5) * self._token_ms / 1000)


def _spoken_s(text: str) -> float:
    """Estimated length of a spoken word."""
    letters = [UNSPACED_LETTER_S if is_unspaced(c) else LETTER_S for c in text if c.isalnum()]
    return min(WORD_BASE_S + sum(letters), MAX_WORD_S)
