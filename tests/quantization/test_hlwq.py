from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from voxmlx.quantization import hlwq


def encode_by_definition(w, bits):
    """Codes and norms from the definition, in float64 with a matrix product."""
    h = np.ones((1, 1))
    while len(h) < 128:
        h = np.block([[h, h], [h, -h]])
    blocks = w.reshape(len(w), -1, 128).astype(np.float64)
    norms = np.linalg.norm(blocks, axis=-1)
    z = blocks / norms[..., None] @ h  # sqrt(128) * H is the matrix of ones and minus ones
    table = hlwq.centroids(bits).astype(np.float64)
    return np.abs(z[..., None] - table).argmin(axis=-1), norms


@pytest.mark.parametrize("bits", [3, 4, 5])
def test_codes_are_those_of_the_definition(bits):
    w = np.random.default_rng(bits).standard_normal((6, 384)).astype(np.float32)

    codes, norms = hlwq.encode(mx.array(w), bits)

    expected, expected_norms = encode_by_definition(w, bits)
    assert (np.array(codes) == expected).mean() > 0.999  # ties of rounding may go either way
    assert np.allclose(np.array(norms), expected_norms, rtol=1e-3)


@pytest.mark.parametrize("bits, error", [(3, 0.186), (4, 0.098), (5, 0.0545)])
def test_error_on_normal_weights_is_as_published(bits, error):
    w = np.random.default_rng(0).standard_normal((256, 512)).astype(np.float32)
    codes, norms = hlwq.encode(mx.array(w), bits)
    table = mx.array(hlwq.centroids(bits))

    back = np.array(hlwq.decode(codes, norms, 512, table, mx.float32))

    assert 0.97 * error < np.linalg.norm(back - w) / np.linalg.norm(w) < 1.01 * error


def test_outlier_columns_cost_nothing():
    w = np.random.default_rng(0).standard_normal((256, 512)).astype(np.float32)
    w[:, ::32] *= 10
    codes, norms = hlwq.encode(mx.array(w), 5)
    back = np.array(hlwq.decode(codes, norms, 512, mx.array(hlwq.centroids(5)), mx.float32))

    assert np.linalg.norm(back - w) / np.linalg.norm(w) < 0.055


def test_ragged_width_is_padded_and_cut():
    w = mx.array(np.random.default_rng(0).standard_normal((4, 200)).astype(np.float32))
    codes, norms = hlwq.encode(w, 5)

    assert codes.shape == (4, 2, 128) and norms.shape == (4, 2)
    back = hlwq.decode(codes, norms, 200, mx.array(hlwq.centroids(5)), mx.float32)
    assert back.shape == (4, 200)
    assert float(mx.abs(back - w).mean()) < 0.06


def test_wrong_bit_order_shows_in_the_codes():
    from voxmlx.kernels.bits import pack_bits, unpack_bits

    w = mx.array(np.random.default_rng(0).standard_normal((64, 128)).astype(np.float32))
    codes, _ = hlwq.encode(w, 5)
    wrong = unpack_bits(pack_bits(codes.reshape(-1), 5, "big"), 5, "little")

    assert not hlwq.looks_shuffled(codes, 5)
    assert hlwq.looks_shuffled(wrong, 5)
