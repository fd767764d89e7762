from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from voxmlx.kernels.hadamard import _matrix, block_hadamard, hadamard_matrix


@pytest.mark.parametrize(("n", "block"), [(128, 128), (384, 128), (64, 16), (9216, 128)])
def test_blocks_are_turned_by_the_matrix(n, block):
    x = mx.random.normal((3, n), key=mx.random.key(n))

    y = block_hadamard(x, block)

    assert y.shape == (3, n)
    expected = np.array(x).reshape(-1, block) @ hadamard_matrix(block)
    assert np.allclose(np.array(y), expected.reshape(3, n), atol=1e-5)
    assert mx.allclose(block_hadamard(y, block), x, atol=1e-5)


def test_the_product_for_devices_without_a_transform(monkeypatch):
    x = mx.random.normal((2, 5, 384), key=mx.random.key(0)).astype(mx.bfloat16)
    transformed = block_hadamard(x)
    monkeypatch.setattr(mx.cuda, "is_available", lambda: True)

    product = block_hadamard(x)

    assert product.dtype == mx.bfloat16 and _matrix(128, mx.bfloat16).shape == (128, 128)
    # The transform rounds to bfloat16, steps of 0.016 at values of 4, after each of seven stages.
    assert mx.allclose(product, transformed, atol=0.07)


@pytest.mark.parametrize(("n", "block"), [(100, 128), (36, 36), (120, 12), (16384, 16384)])
def test_lengths_that_mlx_would_spoil_are_refused(n, block):
    with pytest.raises(ValueError, match="block"):
        block_hadamard(mx.zeros((1, n)), block)
