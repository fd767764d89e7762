"""How sure an error rate is: resampling whole utterances, for one system or for two in pairs.

Utterances are drawn with replacement, because errors inside one are not independent (Bisani and
Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP 2004).
Knows counts only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

N_SAMPLES = 2000
"""Resamples: the ends of a 95 % interval then rest on 50 of them each."""
LEVEL = 0.95

_BLOCK = 1 << 20
"""Numbers drawn at once."""


@dataclass(frozen=True)
class Difference:
    """Error rate of B minus error rate of A on the same utterances.

    Attributes:
        value: The difference; below 0 means that B is better.
        low: Lower end of its interval.
        high: Upper end.
        p_value: How probable so large a difference is by chance, if there is none.
    """

    value: float
    low: float
    high: float
    p_value: float

    @property
    def significant(self) -> bool:
        """Whether chance alone would show so much less than once in twenty times."""
        return self.p_value < 1 - LEVEL


def interval(errors: Sequence[int], lengths: Sequence[int], seed: int = 0) -> tuple[float, float]:
    """Confidence interval of an error rate, by percentiles.

    Args:
        errors: Edits of each utterance.
        lengths: Length of each reference.
        seed: Seed of the draws.

    Returns:
        Lower and upper end.
    """
    e, n = np.asarray(errors, np.float64), np.asarray(lengths, np.float64)
    if len(e) == 0:
        return 0.0, 0.0
    sums = _resampled_sums(np.stack([e, n]), seed)
    rates = sums[0] / np.maximum(sums[1], 1)
    low, high = np.quantile(rates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def compare(
    errors_a: Sequence[int], errors_b: Sequence[int], lengths: Sequence[int], seed: int = 0
) -> Difference:
    """Compare two systems on the same utterances.

    The p-value is the bootstrap's two-sided one: how often resampled differences, moved so that
    their mean is 0, are at least as large as the difference seen.

    Args:
        errors_a: Edits of each utterance by system A.
        errors_b: The same by system B.
        lengths: Length of each reference.
        seed: Seed of the draws.

    Raises:
        ValueError: If the lists differ in length.
    """
    if not len(errors_a) == len(errors_b) == len(lengths):
        raise ValueError(
            f"utterances must be the same, got {len(errors_a)}, {len(errors_b)}, {len(lengths)}"
        )
    if not len(lengths):
        return Difference(0.0, 0.0, 0.0, 1.0)
    d = np.asarray(errors_b, np.float64) - np.asarray(errors_a, np.float64)
    n = np.asarray(lengths, np.float64)
    value = float(d.sum() / max(n.sum(), 1.0))
    if not d.any():
        return Difference(0.0, 0.0, 0.0, 1.0)
    sums = _resampled_sums(np.stack([d, n]), seed)
    values = sums[0] / np.maximum(sums[1], 1)
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    at_least = np.abs(values - value) >= abs(value) - 1e-12
    return Difference(value, float(low), float(high), float((1 + at_least.sum()) / (1 + N_SAMPLES)))


def _resampled_sums(rows: npt.NDArray[np.float64], seed: int) -> npt.NDArray[np.float64]:
    """Sums over utterances drawn with replacement, ``(k, n) -> (k, N_SAMPLES)``."""
    rng = np.random.default_rng(seed)
    n = rows.shape[1]
    per_block = max(1, _BLOCK // n)
    sums = []
    for start in range(0, N_SAMPLES, per_block):
        draws = rng.integers(0, n, (min(per_block, N_SAMPLES - start), n))
        sums.append(rows[:, draws].sum(axis=-1))
    return np.concatenate(sums, axis=1)
