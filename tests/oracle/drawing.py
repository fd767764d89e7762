"""Random tensors that are the same for the same seed and name on every machine."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping

import numpy as np

Scale = Callable[[str, np.ndarray, float], np.ndarray]
"""Gives standard normal numbers the size that a tensor has: name, numbers, root of its inputs."""


def draw(shapes: Mapping[str, tuple[int, ...]], scale: Scale, seed: int) -> dict[str, np.ndarray]:
    """All tensors, float32, each from a generator of its own."""
    return {name: _tensor(name, shape, scale, seed) for name, shape in shapes.items()}


def _tensor(name: str, shape: tuple[int, ...], scale: Scale, seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    x = scale(name, rng.standard_normal(shape), float(np.sqrt(np.prod(shape[1:]))))
    return np.ascontiguousarray(x, dtype=np.float32)
