"""Choosing the next token from logits."""

from __future__ import annotations

import mlx.core as mx


def check_sampling(temperature: float, top_p: float) -> None:
    """Check sampling settings.

    Raises:
        ValueError: If ``temperature`` is negative or ``top_p`` is outside (0, 1].
    """
    if not temperature >= 0:
        raise ValueError(f"temperature must be 0 (greedy) or more, got {temperature!r}")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must be in (0, 1], got {top_p!r}")


def sample(
    logits: mx.array, temperature: float = 0.0, top_p: float = 1.0, key: mx.array | None = None
) -> mx.array:
    """Draw one id for each row of ``logits``, ``(..., vocab) -> (...)`` uint32.

    Args:
        logits: Scores of the next token.
        temperature: 0 takes the largest score.
        top_p: Mass of the smallest set of likeliest tokens to draw from.
        key: State of the random generator; ``None`` uses the global one.
    """
    if temperature == 0:
        return mx.argmax(logits, axis=-1)
    scores = logits.astype(mx.float32) / temperature
    if top_p < 1:
        order = mx.argsort(-scores, axis=-1)
        probabilities = mx.softmax(mx.take_along_axis(scores, order, axis=-1), axis=-1)
        before = mx.cumsum(probabilities, axis=-1) - probabilities
        ranks = mx.argsort(order, axis=-1)
        scores = mx.where(mx.take_along_axis(before, ranks, axis=-1) < top_p, scores, -mx.inf)
    return mx.random.categorical(scores, axis=-1, key=key)
