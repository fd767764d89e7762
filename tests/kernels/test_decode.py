"""The kernels of a decoding step give what MLX's own operations give."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import pytest

from voxmlx.cache.ring import RingKVCache, ring_index
from voxmlx.cache.store import KVStore
from voxmlx.kernels.decode import add_norm, gated

OFFSETS = [
    (64, [0]),
    (64, [70]),
    (64, [299]),
    (64, [0, 17, 64, 300, 1000]),
    (1500, [900]),
    (1500, [0, 700, 1490, 5000, 7777]),
]
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
@pytest.mark.parametrize("n_new", [1, 4, 20])
@pytest.mark.parametrize("window, offsets", OFFSETS)
@pytest.mark.parametrize("heads", [(8, 2, 128), (4, 4, 64)])
def test_rings_changed_in_place(dtype, n_new, window, offsets, heads):
    n_rows, (n_heads, n_kv_heads, width) = len(offsets), heads
    kinds = (mx.float32, dtype)
    caches = [
        RingKVCache(KVStore(1, n_kv_heads, width, kind), window, 24, n_rows, 1e6, 10**6)
        for kind in kinds
    ]
    shape = (n_rows, n_kv_heads, caches[0].full_capacity, width)
    for cache, kind in zip(caches, kinds, strict=True):
        cache.reserve(cache.full_capacity)
        cache.offsets = list(offsets)
        for i, name in enumerate(("keys", "values")):
            old = mx.random.normal(shape, key=mx.random.key(i)).astype(dtype)
            cache.store.buffers[name][0] = mx.array(old.astype(kind))
    qkv = mx.random.normal((n_rows * n_new, (n_heads + 2 * n_kv_heads) * width)).astype(dtype)
    mx.eval(qkv, [cache.store.buffers for cache in caches])

    with mx.stream(mx.cpu):
        x = qkv.astype(mx.float32).reshape(n_rows, n_new, -1, width).transpose(0, 2, 1, 3)
        index = caches[0].prepare(n_new)
        turned = mx.fast.rope(
            x[:, :-n_kv_heads], width, traditional=True, base=1e6, scale=1.0, offset=index.offset
        )
        q, k = turned[:, :n_heads], turned[:, n_heads:]
        expected = caches[0].attend(0, q, k, x[:, -n_kv_heads:], index, width**-0.5)
        expected = expected.transpose(0, 2, 1, 3).reshape(len(qkv), -1)
        mx.eval(expected, caches[0].store.buffers)
    place = caches[1].place_in_place(n_new)
    assert place.in_place and caches[1].store.writes_in_place
    seen = ring_index(mx.array(offsets, dtype=mx.int32), place)
    got = caches[1].attend_joined(0, qkv, seen, n_heads, 1e6)
    mx.eval(got)

    limit = {mx.float32: 1e-4, mx.bfloat16: 1e-2, mx.float16: 2e-3}[dtype]
    assert distance(got, expected) < limit
    for name in ("keys", "values"):
        one, other = (cache.store.buffers[name][0] for cache in caches)
        assert distance(other, one) < limit


def distance(x: mx.array, y: mx.array) -> float:
    """Of ``x`` from ``y``, as a share of ``y``."""
    x, y = x.astype(mx.float32), y.astype(mx.float32)
    return (mx.sqrt(mx.sum(mx.square(x - y))) / mx.sqrt(mx.sum(mx.square(y)))).item()
