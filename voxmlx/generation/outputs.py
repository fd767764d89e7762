"""What a pass of the decoder chose, on the device and read from it. Knows no rows, no network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx


@dataclass(frozen=True)
class Outputs:
    """What follows each scored position, on the device: ``(B, N)``, or ``(B, N, n)``.

    ``gaps``, ``(Q,)``, holds how far the logits asked for lie below the highest of their place.
    """

    ids: mx.array
    logprobs: mx.array
    best_ids: mx.array | None = None
    best_logprobs: mx.array | None = None
    gaps: mx.array | None = None

    def __iter__(self) -> Iterator[mx.array]:
        """The arrays."""
        arrays = (self.ids, self.logprobs, self.best_ids, self.best_logprobs, self.gaps)
        return (x for x in arrays if x is not None)

    def alternatives(self) -> list[list[list[tuple[int, float]]]]:
        """Likeliest ids with their log-probabilities, by row and position; empty if none."""
        if self.best_ids is None or self.best_logprobs is None:
            return []
        return [
            [list(zip(*place, strict=True)) for place in zip(*row, strict=True)]
            for row in zip(nested(self.best_ids), nested(self.best_logprobs), strict=True)
        ]


def nested(x: mx.array) -> Any:
    """Nested lists of numbers; how deep they are is known to the caller only."""
    return x.tolist()


def best_alternatives(logprobs: mx.array, n: int) -> tuple[mx.array, mx.array]:
    """The ``n`` likeliest ids and their values, ``(B, N, V) -> (B, N, n)`` twice, best first."""
    n = min(n, logprobs.shape[-1])
    ids = mx.argpartition(-logprobs, n - 1, axis=-1)[..., :n]
    values = mx.take_along_axis(logprobs, ids, axis=-1)
    order = mx.argsort(-values, axis=-1)
    return mx.take_along_axis(ids, order, axis=-1), mx.take_along_axis(values, order, axis=-1)


def gaps_of(logits: mx.array, places: Sequence[tuple[int, int, int]]) -> mx.array | None:
    """How far logits lie below the highest of their place.

    Args:
        logits: ``(B, N, V)``.
        places: Row, place and id of each; ``None`` comes back if there are none.

    Returns:
        ``(Q,)``.
    """
    if not places:
        return None
    rows, positions, ids = (mx.array(column) for column in zip(*places, strict=True))
    return logits.max(axis=-1)[rows, positions] - logits[rows, positions, ids]


def add_biases(logits: mx.array, slot: int, biases: list[dict[int, float]]) -> mx.array:
    """Add the rules' biases to one row's scored positions."""
    entries = [(j, i, value) for j, bias in enumerate(biases) for i, value in bias.items()]
    if not entries:
        return logits
    positions, ids, values = (mx.array(column) for column in zip(*entries, strict=True))
    return logits.at[slot, positions, ids].add(values)
