"""Operations on rows give what NumPy and MLX's own give, on every device."""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
import pytest

from voxmlx.kernels.rows import add_bias, embed_packed, gelu, take_steps

cuda = pytest.mark.skipif(not mx.cuda.is_available(), reason="needs a CUDA device")
TYPES = {mx.float32: 1e-6, mx.bfloat16: 1e-2, mx.float16: 2e-3}


def as_numbers(x: mx.array) -> np.ndarray:
    return np.array(x.astype(mx.float32)).astype(np.float64)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(3, 5, 40), (1, 7)])
def test_gelu(dtype, shape):
    x = (3 * mx.random.normal(shape, key=mx.random.key(0))).astype(dtype)

    numbers = as_numbers(x)
    expected = numbers * (1 + np.vectorize(math.erf)(numbers / math.sqrt(2))) / 2
    assert gelu(x).dtype == dtype and gelu(x).shape == shape
    assert np.allclose(as_numbers(gelu(x)), expected, atol=4 * TYPES[dtype])


@pytest.mark.parametrize("dtype", TYPES)
def test_add_bias(dtype):
    x = mx.random.normal((2, 3, 70), key=mx.random.key(0)).astype(dtype)
    bias = mx.random.normal((70,), key=mx.random.key(1)).astype(dtype)

    got = add_bias(x, bias)

    assert got.shape == x.shape
    assert np.allclose(as_numbers(got), as_numbers(x) + as_numbers(bias), atol=4 * TYPES[dtype])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    "places, n, taken",
    [
        ([[0], [3]], 2, [[0, 1], [3, 4]]),
        ([[4], [2]], 3, [[4, 5, 5], [2, 3, 4]]),
        ([[5, 0, 2], [1, 1, 4]], 3, [[5, 0, 2], [1, 1, 4]]),
    ],
)
def test_take_steps(dtype, places, n, taken):
    x = mx.random.normal((2, 6, 300), key=mx.random.key(0)).astype(dtype)

    got = take_steps(x, mx.array(places, dtype=mx.int32), n)

    assert mx.array_equal(got, mx.stack([x[row][mx.array(i)] for row, i in enumerate(taken)]))


@cuda
@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
@pytest.mark.parametrize("group_size", [32, 64, 128])
def test_embed_packed(dtype, group_size):
    table = mx.random.normal((50, 3072), key=mx.random.key(0)).astype(dtype)
    packed = mx.quantize(table, group_size, 4)
    ids = mx.array([[7, 49, 0], [7, 1, 2]], dtype=mx.int32)

    got = embed_packed(ids, tuple(packed), group_size)

    expected = mx.dequantize(*packed, group_size=group_size, bits=4)[ids]
    assert got.shape == (2, 3, 3072) and got.dtype == dtype
    assert np.allclose(as_numbers(got), as_numbers(expected), atol=2 * TYPES[dtype])
