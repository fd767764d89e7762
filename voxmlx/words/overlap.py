"""One text from the texts of overlapping recordings.

Neighbouring windows of a long recording share some seconds, so the end of one text is the start of
the next. The two are aligned on their longest common run of words and cut in its middle: words at a
window's edge, which it may have heard only half, are taken from the other one.
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher

N_HELD = 100
"""Words at an edge that are compared: 15 seconds of very fast speech."""

MIN_RUN = 3
"""Words that must agree; fewer are equal by chance."""

_COMPLETE = re.compile(r"\s*\S+(?=\s)")


class OverlapJoiner:
    """Joins texts, each given piece by piece; what can no longer change is given out at once.

    Attributes:
        parts: Text given out so far, by the window it comes from.
    """

    def __init__(self) -> None:
        self.parts: list[str] = []
        self._left: list[str] | None = None  # last words of the window before, until joined
        self._words: list[tuple[int, str]] = []
        self._open = ""
        self._more = False

    @property
    def n_settled(self) -> int:
        """Windows whose text is complete."""
        if self._left is not None:
            return len(self.parts) - 2
        return self._words[0][0] if self._words else len(self.parts) - 1

    def start(self, more: bool) -> None:
        """Begin a window.

        Args:
            more: Whether another one follows, which shares its last seconds.
        """
        self._more = more
        self.parts.append("")

    def add(self, text: str) -> str:
        """Take more of the window's text and return what is settled."""
        self._open += text
        complete = _COMPLETE.findall(self._open)
        self._open = self._open[sum(map(len, complete)) :]
        self._words += [(len(self.parts) - 1, word) for word in complete]
        if self._left is not None and len(self._words) < N_HELD:
            return ""
        return self._release()

    def end(self) -> str:
        """End the window and return what is settled; without another one that is all."""
        if self._open:
            self._words.append((len(self.parts) - 1, self._open))
            self._open = ""
        text = self._release()
        if self._more:
            self._left = [word for _, word in self._words]
            self._words = []
        return text

    def _release(self) -> str:
        """Join with the window before if that is due, and give out all but the words to hold."""
        if self._left is not None:
            self._join(self._left)
            self._left = None
        n = max(0, len(self._words) - (N_HELD if self._more else 0))
        words, self._words = self._words[:n], self._words[n:]
        if not self._more and self._open:
            words.append((len(self.parts) - 1, self._open))
            self._open = ""
        for window, word in words:
            self.parts[window] += word
        return "".join(word for _, word in words)

    def _join(self, left: list[str]) -> None:
        """Put the words of the window before in front of those of this one."""
        window = len(self.parts) - 1
        right = [word for _, word in self._words]
        n_left, n_right = find_cut(left, right)
        if left and right[n_right:] and not right[n_right][0].isspace():
            right[n_right] = " " + right[n_right]
        self._words = [(window - 1, word) for word in left[:n_left]]
        self._words += [(window, word) for word in right[n_right:]]


def find_cut(left: list[str], right: list[str]) -> tuple[int, int]:
    """How many words of ``left`` to keep and of ``right`` to leave out.

    Where too few words agree, every word of both is kept: one said twice is better than one lost.
    """
    match = SequenceMatcher(
        None, [_plain(w) for w in left], [_plain(w) for w in right], autojunk=False
    ).find_longest_match()
    if match.size < min(MIN_RUN, len(left), len(right)) or not match.size:
        return len(left), 0
    middle = match.size // 2
    return match.a + middle, match.b + middle


def _plain(word: str) -> str:
    """A word without what two transcripts of the same speech may differ in."""
    letters = "".join(char for char in word.casefold() if char.isalnum())
    return letters or word.strip()
