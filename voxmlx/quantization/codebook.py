"""Scalar codebooks for normal values: Lloyd-Max centroids and nearest-centroid codes."""

from __future__ import annotations

import functools
import math

import numpy as np

CONVERGED_STEPS = 4000
"""Lloyd steps after which an 8-bit table moves by less than float32 can show."""


def _density(x: float) -> float:
    return 0.0 if math.isinf(x) else math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def _cumulative(x: float) -> float:
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


@functools.cache
def lloyd_max(
    bits: int, n_steps: int = CONVERGED_STEPS, span: float = 4.0, open_ends: bool = True
) -> np.ndarray:
    """Centroids for a standard normal value after ``n_steps`` of Lloyd's iteration.

    Args:
        bits: The table has ``2**bits`` entries.
        n_steps: Steps from evenly spaced boundaries. Published formats stop early, and a reader
            needs the very table the writer used.
        span: The first boundaries run from ``-span`` to ``span``.
        open_ends: Whether the outer cells reach to infinity.

    Returns:
        ``(2**bits,)`` float64, ascending, read-only.
    """
    n = 1 << bits
    bounds = np.linspace(-span, span, n + 1)
    if open_ends:
        bounds[0], bounds[-1] = -np.inf, np.inf
    centroids = np.zeros(n)
    for _ in range(n_steps):
        density = np.array([_density(b) for b in bounds])
        mass = np.diff([_cumulative(b) for b in bounds])
        moved = np.where(mass > 1e-12, -np.diff(density) / np.maximum(mass, 1e-12), centroids)
        done = np.array_equal(moved, centroids)
        centroids = moved
        bounds[1:-1] = (centroids[:-1] + centroids[1:]) / 2
        if done:
            break
    centroids.flags.writeable = False
    return centroids


def midpoints(centroids: np.ndarray) -> np.ndarray:
    """Boundaries between neighbouring centroids, ``(n - 1,)``."""
    return (centroids[:-1] + centroids[1:]) / 2
