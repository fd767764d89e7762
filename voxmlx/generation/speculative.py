"""Guessing the next tokens of a row, and how many of them to try.

Most positions of speech hold a pad, and the audio fixes most others: what the network predicted for
a position behind a wrong guess is mostly right all the same. A guess costs little and never changes
the result, so there is no second model here.
"""

from __future__ import annotations

from collections.abc import Sequence

MAX_POSITIONS = 32
"""Most positions of a pass that adapts."""

N_CONTEXT = 2
"""Tokens that a remembered continuation looks back on."""


def count_right(guesses: Sequence[int], ids: Sequence[int]) -> int:
    """How many guesses hold: those before the first that the network did not choose.

    Args:
        guesses: Tokens placed unproven.
        ids: The network's choice in the place of each, and more.
    """
    for n, (guess, token_id) in enumerate(zip(guesses, ids, strict=False)):
        if guess != token_id:
            return n
    return len(guesses)


class Guesser:
    """Guesses one row's tokens.

    Args:
        pad_id: The commonest token.
        positions: Positions to try in every pass; ``None`` adapts to the success seen.
    """

    def __init__(self, pad_id: int, positions: int | None = None):
        self._pad = pad_id
        self._fixed = positions
        self._rest: list[int] = []
        self._history: list[int] = []
        self._seen: dict[tuple[int, ...], int] = {}
        self._run = 4.0

    @property
    def positions(self) -> int:
        """Positions to try in the next pass: about twice the run that held so far."""
        if self._fixed is not None:
            return self._fixed
        return max(1, min(MAX_POSITIONS, round(2 * self._run)))

    def guess(self, n: int) -> list[int]:
        """Guess the next ``n`` tokens."""
        tokens = self._rest[: max(0, n)]
        while len(tokens) < n:
            context = (self._history + tokens)[-N_CONTEXT:]
            tokens.append(self._seen.get(tuple(context), self._pad))
        return tokens

    def learn(self, tokens: Sequence[int], n_guessed: int, rest: Sequence[int]) -> None:
        """Take over a pass.

        Args:
            tokens: What the row really wrote.
            n_guessed: Guesses of the pass; ``len(tokens) - 1`` of them were right.
            rest: Predictions for the positions after those tokens, made behind a wrong guess.
        """
        for token in tokens:
            if len(self._history) >= N_CONTEXT:
                self._seen[tuple(self._history[-N_CONTEXT:])] = token
            self._history = [*self._history[-N_CONTEXT + 1 :], token]
        self._rest = list(rest)
        if n_guessed == 0:
            return
        all_right = len(tokens) - 1 == n_guessed
        run = 2.0 * len(tokens) if all_right else float(len(tokens))
        self._run += 0.25 * (run - self._run)
