"""Guessing text by looking up what followed the same tokens earlier."""

from __future__ import annotations

from collections.abc import Sequence

N_CONTEXT = 3
"""Tokens that must be the same; fewer match by chance."""

MIN_GUESS, MAX_GUESS = 2, 16
"""Tokens of one guess; it doubles with success and halves with failure."""


class LookupGuesser:
    """Guesses the continuation of one text.

    Args:
        text: Ids of text that may be written again.
    """

    def __init__(self, text: Sequence[int] = ()):
        self._history: list[int] = []
        self._following: dict[tuple[int, ...], int] = {}
        self._size = 4
        self.add(text)

    def add(self, tokens: Sequence[int]) -> None:
        """Take over tokens of the text."""
        for token in tokens:
            if len(self._history) >= N_CONTEXT:
                self._following[tuple(self._history[-N_CONTEXT:])] = len(self._history)
            self._history.append(token)

    def guess(self, limit: int) -> list[int]:
        """At most ``limit`` tokens that may come next; none where nothing repeats."""
        start = self._following.get(tuple(self._history[-N_CONTEXT:]))
        if start is None:
            return []
        return self._history[start : start + min(self._size, limit)]

    def learn(self, n_right: int, n_guessed: int) -> None:
        """Take over how much of a guess held."""
        if n_right == n_guessed:
            self._size = min(MAX_GUESS, 2 * self._size)
        else:
            self._size = max(MIN_GUESS, self._size // 2)
