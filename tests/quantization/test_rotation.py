from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from voxmlx.kernels.hadamard import block_hadamard, hadamard_matrix
from voxmlx.quantization.codebook import lloyd_max
from voxmlx.quantization.rotation import ROTATIONS, rotation_matrix


@pytest.mark.parametrize("name", ROTATIONS[1:])
@pytest.mark.parametrize("dim", [32, 64, 128])
def test_rotations_are_orthogonal(name, dim):
    matrix = rotation_matrix(name, dim)

    assert matrix.shape == (dim, dim)
    assert np.allclose(matrix @ matrix.T, np.eye(dim), atol=1e-12)


@pytest.mark.parametrize("name, block", [("planar", 2), ("iso", 4)])
def test_blocks_stay_apart(name, block):
    matrix = rotation_matrix(name, 64)

    outside = 1 - np.kron(np.eye(64 // block), np.ones((block, block)))
    assert not (matrix * outside).any()
    assert len(np.unique(matrix[0, :block])) == block  # random angles, not a fixed one


def test_planar_rotation_commutes_with_rotary_pairs():
    # Neighbouring channels are RoPE's pairs too, so planar cannot spread what RoPE does not.
    rng = np.random.default_rng(0)
    x = mx.array(rng.standard_normal((1, 1, 50, 64)).astype(np.float32))
    r = mx.array(rotation_matrix("planar", 64).astype(np.float32))

    def rope(y):
        return mx.fast.rope(y, 64, traditional=True, base=1e6, scale=1.0, offset=3)

    assert mx.allclose(rope(x @ r.T), rope(x) @ r.T, atol=1e-5)
    iso = mx.array(rotation_matrix("iso", 64).astype(np.float32))
    assert not mx.allclose(rope(x @ iso.T), rope(x) @ iso.T, atol=0.1)


@pytest.mark.parametrize("shape, block", [((3, 128), 128), ((2, 9216), 128), ((5, 64), 32)])
def test_block_hadamard_is_the_matrix_and_its_own_inverse(shape, block):
    x = mx.array(np.random.default_rng(1).standard_normal(shape).astype(np.float32))

    y = block_hadamard(x, block)

    expected = np.array(x).reshape(-1, block) @ hadamard_matrix(block)
    assert np.allclose(np.array(y).reshape(-1, block), expected, atol=1e-5)
    assert mx.allclose(block_hadamard(y, block), x, atol=1e-5)


@pytest.mark.parametrize("n, block", [(100, 100), (9216, 9216), (36, 36), (130, 128)])
def test_lengths_that_mlx_would_corrupt_are_refused(n, block):
    with pytest.raises(ValueError, match="block"):
        block_hadamard(mx.zeros((2, n)), block)


def test_converged_table_minimises_the_error():
    # Max (1960): least mean squared error of 2, 3 and 4 bits on a normal value.
    x = np.random.default_rng(0).standard_normal(400_000)
    for bits, expected in ((2, 0.1175), (3, 0.03454), (4, 0.009497)):
        table = lloyd_max(bits)
        nearest = table[np.abs(x[:, None] - table).argmin(axis=1)]
        assert np.mean((x - nearest) ** 2) == pytest.approx(expected, rel=0.02)


def test_unconverged_table_of_hlwq():
    table = lloyd_max(5, n_steps=100)

    expected = [0.08799, 0.26407, 0.44043, 0.61732, 0.79505, 0.97406, 1.15496, 1.33868]
    assert np.allclose(table[16:24], expected, atol=5e-6)
    assert np.allclose(table, -table[::-1], atol=1e-9)
