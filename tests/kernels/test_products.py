"""Products of a few rows with packed matrices give what unpacked ones give."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import pytest

from voxmlx.kernels import products
from voxmlx.kernels.launch import on_cuda

cuda = pytest.mark.skipif(not mx.cuda.is_available(), reason="needs a CUDA device")


def packed(n_out: int, width: int, dtype: mx.Dtype, group_size: int) -> list[mx.array]:
    weight = mx.random.normal((n_out, width), key=mx.random.key(1)).astype(dtype)
    return list(mx.quantize(weight, group_size, 4))


def test_only_on_cuda():
    matrix = tuple(packed(16, 256, mx.bfloat16, 64))

    assert products.suits(mx.zeros((1, 256), mx.bfloat16), matrix, 64) == on_cuda()
    assert not products.suits(mx.zeros((1, 256)), matrix, 64)
    assert not products.suits(mx.zeros((products.MAX_ROWS + 1, 256), mx.bfloat16), matrix, 64)


@cuda
@pytest.mark.parametrize(
    "dtype, group_size, shape",
    [
        (mx.bfloat16, 64, (3072, 1280)),
        (mx.bfloat16, 64, (1000, 256)),
        (mx.bfloat16, 32, (72, 768)),
        (mx.bfloat16, 128, (72, 768)),
        (mx.float16, 64, (72, 768)),
    ],
)
@pytest.mark.parametrize("n", [1, 3, 8, 9, 17, 33, 64, 100])
def test_packed_product(dtype, group_size, shape, n):
    n_out, width = shape
    arrays = packed(n_out, width, dtype, group_size)
    x = mx.random.normal((n, width), key=mx.random.key(n)).astype(dtype)
    weight = mx.dequantize(*arrays, group_size=group_size, bits=4).astype(mx.float32)
    expected = (x.astype(mx.float32) @ weight.T).astype(mx.float32)

    got = products.multiply_packed(x, tuple(arrays), group_size).astype(mx.float32)

    size = mx.sqrt(mx.sum(mx.square(expected)))
    error = (mx.sqrt(mx.sum(mx.square(got - expected))) / size).item()
    assert got.shape == (n, n_out) and error < (3e-3 if dtype == mx.bfloat16 else 4e-4)


@cuda
@pytest.mark.parametrize("n", [1, 9, 40])
def test_gated_product(n):
    arrays = packed(192, 512, mx.bfloat16, 64)
    x = mx.random.normal((n, 512), key=mx.random.key(n)).astype(mx.bfloat16)
    weight = mx.dequantize(*arrays, group_size=64, bits=4).astype(mx.float32)
    y = x.astype(mx.float32) @ weight.T
    expected = nn.silu(y[:, :96]) * y[:, 96:]

    got = products.multiply_packed(x, tuple(arrays), 64, gated=True).astype(mx.float32)

    error = mx.sqrt(mx.sum(mx.square(got - expected)) / mx.sum(mx.square(expected))).item()
    assert got.shape == (n, 96) and error < 1e-2


@cuda
@pytest.mark.parametrize("n, each, gated", [(1, False, False), (8, True, True), (3, False, True)])
def test_norm_and_sum_in_the_product(n, each, gated):
    arrays = packed(192, 512, mx.bfloat16, 64)
    keys = [mx.random.key(i) for i in range(3)]
    x = mx.random.normal((n, 512), key=keys[0]).astype(mx.bfloat16)
    norm = mx.random.normal((n, 512) if each else (512,), key=keys[1]).astype(mx.bfloat16)
    add = mx.random.normal((n, 96 if gated else 192), key=keys[2]).astype(mx.bfloat16)
    normed = (mx.fast.rms_norm(x, None, 1e-5) * norm).astype(mx.float32)
    y = normed @ mx.dequantize(*arrays, group_size=64, bits=4).astype(mx.float32).T
    y = nn.silu(y[:, :96]) * y[:, 96:] if gated else y
    expected = y + add

    got = products.multiply_packed(x, tuple(arrays), 64, gated, (norm, 1e-5), add)

    error = mx.sqrt(mx.sum(mx.square(got - expected)) / mx.sum(mx.square(expected))).item()
    assert error < 2e-2


@cuda
@pytest.mark.parametrize("n", [1, 8, 9, 40, 100])
@pytest.mark.parametrize("added", [False, True])
def test_bias_and_sum_in_the_product(n, added):
    arrays = packed(200, 512, mx.bfloat16, 64)
    x = mx.random.normal((n, 512), key=mx.random.key(n)).astype(mx.bfloat16)
    bias = (8 * mx.random.normal((200,), key=mx.random.key(1))).astype(mx.bfloat16)
    add = (8 * mx.random.normal((n, 200), key=mx.random.key(2))).astype(mx.bfloat16)
    y = x.astype(mx.float32) @ mx.dequantize(*arrays, group_size=64, bits=4).astype(mx.float32).T
    expected = y + bias + add if added else y + bias

    got = products.multiply_packed(
        x, tuple(arrays), 64, add=add if added else None, bias=bias
    ).astype(mx.float32)

    error = mx.sqrt(mx.sum(mx.square(got - expected)) / mx.sum(mx.square(expected))).item()
    assert got.shape == (n, 200) and error < 5e-3
