"""Logit rules: small functions of a row's own tokens that push or bar the token that follows.

A rule holds no state of its own. Its state is a value, computed from the tokens alone, so a rule
gives the same result whether positions are decoded one by one, several at once, or in a batch.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol


class LogitRule(Protocol):
    """What decoding asks of a rule.

    Attributes:
        initial: State before the first output token.
    """

    @property
    def initial(self) -> Hashable:
        """State before the first output token."""

    def next(self, state: Any, token_id: int) -> Hashable:
        """State after ``token_id``; must not change ``state``."""

    def bias(self, state: Any) -> Mapping[int, float]:
        """What to add to the logits of the token that follows, by id; empty means free."""


def initial_states(rules: Sequence[LogitRule]) -> tuple[Hashable, ...]:
    """States of all rules before the first output token."""
    return tuple(rule.initial for rule in rules)


def next_states(
    rules: Sequence[LogitRule], states: Sequence[Hashable], token_id: int
) -> tuple[Hashable, ...]:
    """States of all rules after ``token_id``."""
    return tuple(rule.next(s, token_id) for rule, s in zip(rules, states, strict=True))


def total_bias(rules: Sequence[LogitRule], states: Sequence[Hashable]) -> dict[int, float]:
    """Sum of the rules' biases, by id."""
    total: dict[int, float] = {}
    for rule, state in zip(rules, states, strict=True):
        for token_id, value in rule.bias(state).items():
            total[token_id] = total.get(token_id, 0.0) + value
    return total
