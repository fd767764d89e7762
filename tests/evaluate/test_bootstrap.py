from __future__ import annotations

import numpy as np
import pytest

from voxmlx.evaluate.bootstrap import compare, interval


def utterances(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Lengths, and how hard each utterance is: systems err on the same ones."""
    return rng.integers(3, 30, n), rng.beta(1, 6, n)


def test_interval_holds_the_true_rate_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    n_inside = 0
    for trial in range(300):
        lengths, hardness = utterances(rng, 120)
        low, high = interval(rng.binomial(lengths, hardness), lengths, seed=trial)
        n_inside += low <= 1 / 7 <= high
    # 0.95 expected; 0.90 leaves room for chance (4 standard deviations) and for the percentile
    # method's known optimism with few utterances.
    assert 0.90 <= n_inside / 300 <= 0.99


def test_equal_systems_are_called_different_once_in_twenty_times():
    rng = np.random.default_rng(1)
    n_trials, n_significant = 600, 0
    for trial in range(n_trials):
        lengths, hardness = utterances(rng, 150)
        a, b = rng.binomial(lengths, hardness), rng.binomial(lengths, hardness)
        n_significant += compare(a, b, lengths, seed=trial).significant
    # One standard deviation is 0.9 points.
    assert 0.025 <= n_significant / n_trials <= 0.08


def test_better_system_is_found():
    rng = np.random.default_rng(2)
    lengths, hardness = utterances(rng, 400)
    a, b = rng.binomial(lengths, hardness), rng.binomial(lengths, 0.7 * hardness)
    difference = compare(a, b, lengths)
    assert difference.significant
    assert difference.low < difference.value < difference.high < 0
    turned = compare(b, a, lengths)
    assert (turned.value, turned.p_value) == (-difference.value, difference.p_value)


def test_same_transcripts_differ_by_nothing():
    difference = compare([1, 2, 0], [1, 2, 0], [5, 5, 5])
    assert (difference.value, difference.low, difference.high) == (0, 0, 0)
    assert (difference.p_value, difference.significant) == (1.0, False)


def test_edge_cases():
    assert interval([], []) == (0.0, 0.0)
    assert interval([2], [4]) == (0.5, 0.5)
    assert compare([], [], []).p_value == 1.0
    with pytest.raises(ValueError, match="utterances must be the same, got 1, 2, 2"):
        compare([1], [1, 2], [3, 4])
