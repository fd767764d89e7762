"""The kernels of a decoding step give what MLX's own operations give."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
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
    store = KVStore(1, n_kv_heads, width, dtype)
    cache = RingKVCache(store, window, 24, n_rows, 1e6, 10**6)
    cache.reserve(cache.full_capacity)
    cache.offsets = list(offsets)
    for i, name in enumerate(("keys", "values")):
        shape = store.buffers[name][0].shape
        store.buffers[name][0] = mx.random.normal(shape, key=mx.random.key(i)).astype(dtype)
    qkv = mx.random.normal((n_rows * n_new, (n_heads + 2 * n_kv_heads) * width)).astype(dtype)
    mx.eval(qkv, cache.store.buffers)
    rings = [np.array(cache.store.buffers[n][0].astype(mx.float32)) for n in ("keys", "values")]
    steps = np.array(qkv.astype(mx.float32)).reshape(n_rows, n_new, -1, width)

    place = cache.place_in_place(n_new)
    assert place.in_place and cache.store.writes_in_place
    seen = ring_index(mx.array(offsets, dtype=mx.int32), place)
    got = cache.attend_joined(0, qkv, seen, n_heads, 1e6)
    mx.eval(got)

    expected = attended(steps, rings, offsets, window)
    limit = {mx.float32: 1e-4, mx.bfloat16: 1e-2, mx.float16: 2e-3}[dtype]
    assert distance(got, expected.reshape(got.shape)) < limit
    for name, ring in zip(("keys", "values"), rings, strict=True):
        assert distance(cache.store.buffers[name][0], ring) < limit


def attended(
    steps: np.ndarray, rings: list[np.ndarray], offsets: list[int], window: int
) -> np.ndarray:
    """Attention, ``(B, T, H, K)``, from new steps ``(B, T, H + 2 G, K)``; writes the rings."""
    keys, values = rings
    (_, n_kv_heads, capacity, width), n_new = keys.shape, steps.shape[1]
    n_heads = steps.shape[2] - 2 * n_kv_heads
    out = np.zeros((len(steps), n_new, n_heads, width))
    for row, offset in enumerate(offsets):
        positions = offset + np.arange(n_new)
        angles = positions[:, None] * 1e6 ** (-2.0 * np.arange(width // 2) / width)
        pairs = steps[row, :, :-n_kv_heads].reshape(n_new, -1, width // 2, 2)
        turned = (pairs[..., 0] + 1j * pairs[..., 1]) * np.exp(1j * angles)[:, None]
        rotated = np.stack([turned.real, turned.imag], axis=-1).reshape(n_new, -1, width)
        keys[row][:, positions % capacity] = rotated[:, n_heads:].swapaxes(0, 1)
        values[row][:, positions % capacity] = steps[row, :, -n_kv_heads:].swapaxes(0, 1)
        held = positions[-1] - (positions[-1] - np.arange(capacity)) % capacity
        for step, head in np.ndindex(n_new, n_heads):
            kv = head * n_kv_heads // n_heads
            position = positions[step]
            sees = (held >= 0) & (held <= position) & (held > position - window)
            scores = keys[row, kv, sees] @ rotated[step, head] / np.sqrt(width)
            weights = np.exp(scores - scores.max())
            out[row, step, head] = weights @ values[row, kv, sees] / weights.sum()
    return out


def distance(x: mx.array, y: np.ndarray) -> float:
    """Of ``x`` from ``y``, as a share of ``y``."""
    x = np.array(x.astype(mx.float32))
    return float(np.linalg.norm(x - y) / np.linalg.norm(y))
