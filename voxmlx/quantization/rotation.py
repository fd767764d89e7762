"""Orthogonal rotations of a head's vectors, applied before a cache stores them.

``planar`` and ``iso`` follow RotorQuant (github.com/scrya-com/rotorquant): random rotations of
neighbouring pairs, and random unit quaternions multiplied from the left onto neighbouring fours
(IsoQuant-fast). ``hadamard`` is the Walsh-Hadamard matrix, which spreads an outlier over the whole
head where a block of k can spread it over k values only.
"""

from __future__ import annotations

import functools
from typing import Literal, get_args

import numpy as np

from voxmlx.kernels.hadamard import hadamard_matrix

RotationName = Literal["none", "planar", "iso", "hadamard"]
ROTATIONS: tuple[str, ...] = get_args(RotationName)

SEED = 42
"""Seed of the random blocks; RotorQuant's default."""


@functools.cache
def rotation_matrix(name: str, dim: int) -> np.ndarray | None:
    """The rotation ``R`` with ``y = x @ R.T``, ``(dim, dim)`` float64; ``None`` for ``none``.

    Raises:
        ValueError: If the name is unknown, or ``dim`` does not fit the rotation's blocks.
    """
    if name == "none":
        return None
    block = {"planar": 2, "iso": 4}.get(name, dim)
    if name not in ROTATIONS:
        raise ValueError(f"kv_rotation must be one of {', '.join(ROTATIONS)}, got {name!r}")
    if dim % block or (name == "hadamard" and dim & (dim - 1)):
        need = "a power of two" if name == "hadamard" else f"a multiple of {block}"
        raise ValueError(f"kv_rotation={name!r} needs a head width that is {need}, got {dim}")
    if name == "hadamard":
        return hadamard_matrix(dim)
    rng = np.random.default_rng(SEED)
    matrix = np.zeros((dim, dim))
    for start in range(0, dim, block):
        part = _givens(rng) if name == "planar" else _quaternion(rng)
        matrix[start : start + block, start : start + block] = part
    return matrix


def _givens(rng: np.random.Generator) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi)
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s], [s, c]])


def _quaternion(rng: np.random.Generator) -> np.ndarray:
    """Matrix of ``v -> q v`` for a random unit quaternion, components (w, x, y, z)."""
    w, x, y, z = (q := rng.standard_normal(4)) / np.linalg.norm(q)
    return np.array([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]])
