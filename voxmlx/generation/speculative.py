"""Guessing the next tokens of a row, and how many of them to try.

Most positions of speech hold a pad, and the audio fixes most others: what the network predicted for
a position behind a wrong guess is mostly right all the same. A guess never changes the result, so
there is no second model here; whether it pays depends on what a pass and a position cost.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

import mlx.core as mx

MAX_POSITIONS = 64
"""Most positions of a pass that adapts."""

N_SEEN = 4093
"""Continuations to remember: a prime, so that both tokens of a context choose the place."""

PROBE_EVERY = 16
"""Passes without a guess after which one is tried again."""

FORGET = 0.9
"""Weight of everything seen before a pass, against that pass."""


HOST_OVERHEAD = 24.0
"""As :func:`pass_overhead`, where NumPy multiplies: the built-in model takes 4 ms for a pass over
one position and 8 ms for one over 32."""


def count_right(guesses: Sequence[int], ids: Sequence[int]) -> int:
    """How many guesses the network agrees with, up to the first one that it does not.

    Args:
        guesses: Tokens placed after the last known one.
        ids: The network's choice after the last known token and after each guess.
    """
    for n, (guess, token_id) in enumerate(zip(guesses, ids, strict=False)):
        if guess != token_id:
            return n
    return len(guesses)


def pass_overhead(n_places: int) -> float:
    """Cost of a pass beside its positions, counted in positions.

    A GPU reads all weights in any case: for the release's int4 weights on an H200, 64 positions of
    one row, or 1 of 64 rows, take twice the time of 1. Wide passes also mend the guesses of
    later ones, so more was better than that says (``benchmarks/results.md``). MLX's CPU wheels
    compute every position on its own, so there only Python and small operations count.
    """
    if mx.default_device().type == mx.cpu:
        return 2.0
    return 80.0 if n_places == 1 else 40.0


class Continuations:
    """What last followed two tokens, in a table that never grows: newer contexts displace others.

    ``-1`` stands for no token.
    """

    def __init__(self) -> None:
        self._contexts = array("q", [-1]) * N_SEEN
        self._tokens = array("i", [-1]) * N_SEEN

    def get(self, first: int, second: int) -> int:
        """The token that followed, or ``-1``."""
        context = first << 32 | second
        place = context % N_SEEN
        return self._tokens[place] if self._contexts[place] == context else -1

    def put(self, first: int, second: int, token: int) -> None:
        """Remember a token behind two."""
        context = first << 32 | second
        self._contexts[context % N_SEEN] = context
        self._tokens[context % N_SEEN] = token


class Guesser:
    """Guesses one row's tokens.

    Args:
        pad_id: The commonest token.
        positions: Positions to try in every pass; ``None`` adapts to the success seen.
    """

    def __init__(self, pad_id: int, positions: int | None = None):
        self.fixed = positions
        self._pad = pad_id
        self._rest: list[int] = []
        self._last = (-1, -1)
        self._seen = Continuations()
        self._n_tokens, self._n_positions = 2.3, 4.0  # running means of passes with guesses
        self._n_idle = 0
        self.power = self._power()
        """A pass over ``n`` positions is expected to give ``n ** power`` tokens: a wide pass also
        mends the guesses of the next one. The built-in model gives 2.3, 5.8 and 12 tokens a pass
        over 4, 16 and 64 positions."""

    def _power(self) -> float:
        return min(0.95, math.log(max(1.0, self._n_tokens)) / math.log(self._n_positions))

    @property
    def idle(self) -> bool:
        """Whether guessing was given up long enough ago to try again."""
        return self._n_idle >= PROBE_EVERY

    def guess(self, n: int) -> list[int]:
        """Guess the next ``n`` tokens."""
        tokens = self._rest[: max(0, n)]
        first, second = [*self._last, *tokens][-2:]
        while len(tokens) < n:
            token = self._seen.get(first, second) if first >= 0 else -1
            first, second = second, token if token >= 0 else self._pad
            tokens.append(second)
        return tokens

    def learn(self, tokens: Sequence[int], n_guessed: int, rest: Sequence[int]) -> None:
        """Take over a pass.

        Args:
            tokens: What the row really wrote.
            n_guessed: Guesses of the pass; ``len(tokens) - 1`` of them were right.
            rest: Predictions for the positions after those tokens, made behind a wrong guess.
        """
        for token in tokens:
            first, second = self._last
            if first >= 0:
                self._seen.put(first, second, token)
            self._last = (second, token)
        self._rest = list(rest) if n_guessed else self._rest[1:]
        self._n_idle = 0 if n_guessed else self._n_idle + 1
        if n_guessed:
            self._n_tokens += (1 - FORGET) * (len(tokens) - self._n_tokens)
            self._n_positions += (1 - FORGET) * (n_guessed + 1 - self._n_positions)
            self.power = self._power()


def best_width(
    rows: Sequence[Guesser], sizes: Sequence[int], n_places: int, overhead: float
) -> int:
    """Positions of the next pass that promise most tokens for its cost.

    Args:
        rows: The rows of the pass.
        sizes: Widths to choose from.
        n_places: Places of the batch; all of them are computed.
        overhead: See :func:`pass_overhead`.
    """
    powers = [row.power for row in rows]

    def gain(n: int) -> float:
        tokens: float = sum([n**power for power in powers])
        return tokens / (overhead + n * n_places)

    best = max((n for n in sizes if n <= MAX_POSITIONS), key=gain)
    if best == 1 and any(row.idle for row in rows):
        return 2
    return best
