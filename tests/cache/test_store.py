from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from voxmlx.cache.quantized import make_store
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
