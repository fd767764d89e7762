from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from voxmlx.cache.quantized import make_store
from voxmlx.cache.ring import RingKVCache
from voxmlx.cache.store import TURNED_SLOTS, rotate
from voxmlx.config import KVCacheConfig

H, K, THETA = 4, 64, 1e6


def filled(kv, n_slots):
    """A store of two layers with two rows of keys."""
    store = make_store(2, H, K, mx.float32, kv)
    store.allocate(2, n_slots)
    mx.random.seed(0)
    keys = mx.random.normal((2, H, n_slots, K))
    if kv is None:
        store.buffers["keys"][1] = keys + 0  # turned in its place
    else:
        for name, x in store._codec.encode(store._turn(keys)).items():
            store.buffers[f"keys.{name}"][1] = x
    mx.eval(store.buffers)
    return store, keys


def turned_by_formula(keys, shift):
    """In float64; neighbouring channels are pairs."""
    x = np.array(keys).astype(np.float64).reshape(*keys.shape[:3], K // 2, 2)
    angles = np.multiply.outer(shift, THETA ** (-np.arange(K // 2) * 2 / K))[:, None, None]
    sine, cosine = np.sin(angles), np.cos(angles)
    a, b = x[..., 0], x[..., 1]
    return np.stack([a * cosine - b * sine, a * sine + b * cosine], axis=-1).reshape(keys.shape)


@pytest.mark.parametrize("shift", [(7, 300), (-5, 0), (9, -400)])
def test_keys_are_turned_by_angles_of_the_shift(shift, monkeypatch):
    keys = mx.random.normal((2, H, 9, K), key=mx.random.key(0))
    rope, offsets = mx.fast.rope, []

    def watched(*args, offset, **kwargs):
        offsets.append(offset.tolist())
        return rope(*args, offset=offset, **kwargs)

    monkeypatch.setattr(mx.fast, "rope", watched)
    turned = rotate(keys, mx.array(shift), THETA)

    np.testing.assert_allclose(np.array(turned), turned_by_formula(keys, shift), atol=2e-4)
    assert min(map(min, offsets)) >= 0  # CUDA reads several rows' offsets as unsigned


@pytest.mark.parametrize("n_slots", [1, TURNED_SLOTS, 2 * TURNED_SLOTS + 3])
def test_keys_are_turned_in_pieces_as_a_whole(n_slots):
    store, keys = filled(None, n_slots)
    shift = mx.array([-n_slots, -3 * n_slots])
    store.rotate_keys(1, shift, THETA)

    assert mx.array_equal(store.buffers["keys"][1], rotate(keys, shift, THETA))
    assert not store.buffers["keys"][0].any()


@pytest.mark.parametrize("rotation", ["hadamard", "iso"])
def test_coded_keys_are_turned(rotation):
    store, keys = filled(KVCacheConfig(8, rotation), TURNED_SLOTS + 9)
    shift = mx.array([-100, -2000])
    store.rotate_keys(1, shift, THETA)

    stored = {name: store.buffers[f"keys.{name}"][1] for name in store._codec.parts(mx.float32)}
    found = store._turn_back(store._codec.decode(stored, mx.float32))
    error = mx.abs(found - rotate(keys, shift, THETA))
    assert float(error.max()) < 0.15 and float(error.mean()) < 0.02


def test_turning_holds_no_copy_of_a_layer():
    store, keys = filled(None, 40 * TURNED_SLOTS)
    layer = keys.nbytes
    del keys
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    store.rotate_keys(1, mx.array([-1, -2]), THETA)

    assert mx.get_peak_memory() - before < layer / 4
    assert np.isfinite(float(store.buffers["keys"][1].sum()))


def peak_of(call):
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    call()
    return mx.get_peak_memory() - before


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
@pytest.mark.parametrize("offsets", [[8200], [8195], [9000, 20]])
def test_a_step_holds_no_copy_of_a_ring(dtype, offsets):
    """Neither where rows write one run of slots, nor where they wrap round or differ."""
    if dtype == mx.float32 and mx.cuda.is_available():
        pytest.skip("MLX's attention in float32 copies what it reads on CUDA")
    cache = RingKVCache(make_store(1, H, K, dtype, None), 8192, 8, len(offsets))
    cache.reserve(8200)
    cache.offsets = offsets
    mx.random.seed(0)
    new = mx.random.normal((len(offsets), H, 8, K)).astype(dtype)
    mx.eval(new, cache.store.buffers)

    def step():
        index = cache.prepare(8)
        mx.eval(cache.attend(0, new, new, new, index, 0.1))
        cache.advance(8)

    scores = len(offsets) * H * 8 * 8200 * 4
    assert peak_of(step) < cache.nbytes / 8 + 3 * scores
    assert float(mx.abs(cache.store.buffers["values"][0].astype(mx.float32)).sum()) > 0


def test_a_ring_is_completed_from_half_of_it():
    cache = RingKVCache(make_store(2, H, K, mx.float32, None), 1000, 8)
    sizes = []
    for n in range(1, 1100, 50):
        cache.reserve(n)
        sizes.append(cache.capacity)

    assert sorted(set(sizes)) == [256, 512, 1008]
    cache = RingKVCache(make_store(2, H, K, mx.float32, None), 1000, 8)
    cache.reserve(512)
    assert peak_of(lambda: cache.reserve(1008)) < 0.64 * cache.nbytes
