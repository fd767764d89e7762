"""A logit rule that bars the end of the stream for a while. It knows nothing of why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

HOLD_TOKENS = 25
"""Tokens (2 s) that a restarted decoder must write before it may end again: without it, silence
that the model takes for the end would cost a new prompt at every position."""


@dataclass(frozen=True)
class EosHold:
    """Bar EOS from the first tokens; a :class:`voxmlx.generation.rules.LogitRule`.

    The state counts the tokens so far.

    Args:
        eos_id: Id of the end of the stream.
        n_tokens: Tokens that cannot be EOS.
    """

    eos_id: int
    n_tokens: int = HOLD_TOKENS

    @property
    def initial(self) -> int:
        """No token yet."""
        return 0

    def next(self, state: int, token_id: int) -> int:
        """Count a token, as far as needed."""
        return min(state + 1, self.n_tokens)

    def bias(self, state: int) -> Mapping[int, float]:
        """Minus infinity for EOS while it is barred."""
        return {self.eos_id: -math.inf} if state < self.n_tokens else {}
