"""The kernels of a decoding step give what MLX's own operations give."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import pytest

from voxmlx.cache.ring import RingKVCache
from voxmlx.cache.store import KVStore, RingIndex
from voxmlx.kernels import decode
from voxmlx.kernels.decode import add_norm, gated

cuda = pytest.mark.skipif(not mx.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("each", [False, True])
def test_add_norm(each):
    x, y = mx.random.normal((2, 5, 96), key=mx.random.key(0))
    weight = mx.random.normal((5, 96) if each else (96,), key=mx.random.key(1))

    total, normed = add_norm(x, y, weight, 1e-5)

    mean = mx.mean(mx.square(x + y), axis=-1, keepdims=True)
    assert mx.allclose(total, x + y, atol=1e-6)
    assert mx.allclose(normed, (x + y) * mx.rsqrt(mean + 1e-5) * weight, atol=1e-5)


def test_gated():
    y = mx.random.normal((3, 80), key=mx.random.key(0))

    assert mx.allclose(gated(y), nn.silu(y[:, :40]) * y[:, 40:], atol=1e-6)


@cuda
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16])
@pytest.mark.parametrize("n_new", [1, 4])
@pytest.mark.parametrize("offsets", [[0], [70], [299], [0, 17, 64, 300, 1000]])
def test_rings_changed_in_place(dtype, n_new, offsets):
    n_rows, n_heads, n_kv_heads, width, window = len(offsets), 8, 2, 128, 64
    stores = [KVStore(1, n_kv_heads, width, dtype) for _ in range(2)]
    caches = [RingKVCache(store, window, 8, n_rows, 1e6, 10**6) for store in stores]
    key = mx.random.key(0)
    for name in ("keys", "values"):
        old = mx.random.normal(stores[0].buffers[name][0].shape, key=key).astype(dtype)
        stores[0].buffers[name][0], stores[1].buffers[name][0] = old, mx.array(old)
    for cache in caches:
        cache.offsets = list(offsets)
    qkv = mx.random.normal((n_rows * n_new, (n_heads + 2 * n_kv_heads) * width)).astype(dtype)
    x = qkv.reshape(n_rows, n_new, -1, width).transpose(0, 2, 1, 3)
    index = caches[0].prepare(n_new)

    def turn(x: mx.array) -> mx.array:
        return mx.fast.rope(x, width, traditional=True, base=1e6, scale=1.0, offset=index.offset)

    q, k = turn(x[:, :n_heads]), turn(x[:, n_heads:-n_kv_heads])
    expected = caches[0].attend(0, q, k, x[:, -n_kv_heads:], index, width**-0.5)
    placed = caches[1].place_in_place(n_new)
    seen = RingIndex(
        index.offset, index.slots, index.first, index.mask, False, in_place=True, window=window
    )
    assert decode.writes_in_place(dtype, width) and placed.in_place
    got = caches[1].attend_joined(0, qkv, seen, n_heads, 1e6)
    mx.eval(got, expected)

    limit = 1e-4 if dtype == mx.float32 else 2e-2
    expected = expected.transpose(0, 2, 1, 3).reshape(got.shape)
    assert mx.abs(got - expected).max() < limit
    for name in ("keys", "values"):
        one, other = (store.buffers[name][0] for store in stores)
        assert mx.abs(one - other).max() < limit
