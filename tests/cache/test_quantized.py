from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from voxmlx.cache import codecs
from voxmlx.cache.codecs import AffineCodec, CodebookCodec
from voxmlx.cache.growing import GrowingKVCache
from voxmlx.cache.quantized import make_store
from voxmlx.cache.ring import RingKVCache
from voxmlx.config import KV_BITS, KV_ROTATIONS, KVCacheConfig
from voxmlx.kernels.bits import unpack_bits
from voxmlx.quantization.codebook import lloyd_max

B, H, HQ, K = 2, 2, 8, 64
# Bits of one number of a 64-wide vector: codes, and a 16-bit norm or a 16-bit scale and offset.
EXTRA_BITS = {"none": 32 / 64, "hadamard": 32 / 64, "planar": 16 / 64, "iso": 16 / 64}


def vectors(rng, n, n_heads=H):
    return mx.array(rng.standard_normal((B, n_heads, n, K)).astype(np.float32))


def ring(kv, window=24, max_step=8):
    cache = RingKVCache(make_store(1, H, K, mx.float32, kv), window, max_step, B)
    return cache


def run(cache, steps, seed=0):
    rng = np.random.default_rng(seed)
    outputs = []
    for n in steps:
        index = cache.prepare(n)
        q, k, v = vectors(rng, n, HQ), vectors(rng, n), vectors(rng, n)
        outputs.append(cache.attend(0, q, k, v, index, K**-0.5))
        cache.advance(n)
    return mx.concatenate(outputs, axis=2)


@pytest.mark.parametrize("rotation", KV_ROTATIONS)
def test_eight_bits_are_close_to_full_precision_round_the_ring(rotation):
    steps = [8, 1, 3, 8, 8, 2, 1, 7, 8, 5, 8]

    exact = run(ring(None), steps)
    coded = run(ring(KVCacheConfig(8, rotation)), steps)

    assert coded.shape == exact.shape
    # Affine 8-bit groups are off by 0.4% of their range at most; codebook tails reach further.
    assert float(mx.abs(coded - exact).max()) < 0.06
    assert float(mx.abs(coded - exact).mean()) < 0.01


@pytest.mark.parametrize("rotation", KV_ROTATIONS)
def test_error_falls_with_bits(rotation):
    steps = [8] * 5
    exact = run(ring(None), steps)

    errors = [
        float(mx.abs(run(ring(KVCacheConfig(bits, rotation)), steps) - exact).mean())
        for bits in KV_BITS
    ]

    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 10


@pytest.mark.parametrize("rotation", KV_ROTATIONS)
@pytest.mark.parametrize("bits", KV_BITS)
def test_bytes_held_are_those_of_codes_and_scales(bits, rotation):
    store = make_store(1, H, K, mx.float16, KVCacheConfig(bits, rotation))
    store.allocate(B, 32)

    values = 2 * B * H * 32 * K
    assert store.nbytes * 8 / values == bits + EXTRA_BITS[rotation]


@pytest.mark.parametrize("rotation", KV_ROTATIONS)
def test_rejected_positions_leave_no_trace(rotation):
    kv = KVCacheConfig(4, rotation)
    plain, rewound = ring(kv), ring(kv)
    run(plain, [8, 8, 8, 6])
    run(rewound, [8, 8, 8, 6])
    rng = np.random.default_rng(5)
    index = rewound.prepare(8)
    rewound.attend(0, vectors(rng, 8, HQ), vectors(rng, 8), vectors(rng, 8), index, 1.0)

    # The written positions were never counted, so the next step overwrites them.
    assert mx.array_equal(run(plain, [5], seed=9), run(rewound, [5], seed=9))


@pytest.mark.parametrize("rotation", ["none", "iso"])
def test_rows_of_different_length_equal_rows_alone(rotation):
    kv, rng = KVCacheConfig(4, rotation), np.random.default_rng(4)
    together = ring(kv)
    alone = [RingKVCache(make_store(1, H, K, mx.float32, kv), 24, 8, 1) for _ in range(B)]
    for n_kept in [(8, 8), (3, 8), (8, 1), (5, 8), (8, 8), (2, 7)]:
        q, k, v = vectors(rng, 8, HQ), vectors(rng, 8), vectors(rng, 8)
        out = together.attend(0, q, k, v, together.prepare(8), K**-0.5)
        together.advance(n_kept)
        for row, cache in enumerate(alone):
            one = slice(row, row + 1)
            expected = cache.attend(0, q[one], k[one], v[one], cache.prepare(8), K**-0.5)
            cache.advance(n_kept[row])
            assert mx.allclose(out[one], expected, atol=1e-5)

    assert together.offsets == [34, 40]


@pytest.mark.parametrize("rotation", KV_ROTATIONS)
def test_turning_keys_back_and_forth_keeps_them_near(rotation):
    store = make_store(1, H, K, mx.float32, KVCacheConfig(8, rotation))
    cache = RingKVCache(store, 24, 8, B)
    run(cache, [8, 8])
    before = {name: layers[0] for name, layers in store.buffers.items()}
    decoded = [store._codec.decode(
        {n.split(".")[1]: x for n, x in before.items() if n.startswith("keys")}, mx.float32
    )]  # fmt: skip

    shift = mx.array([5, -3], dtype=mx.int32)
    store.rotate_keys(0, shift, 1e6)
    store.rotate_keys(0, -shift, 1e6)

    after = {n.split(".")[1]: x[0] for n, x in store.buffers.items() if n.startswith("keys")}
    again = store._codec.decode(after, mx.float32)
    assert float(mx.abs(again - decoded[0]).max()) < 0.15
    assert mx.array_equal(before["values.codes"], store.buffers["values.codes"][0])


@pytest.mark.parametrize("bits", KV_BITS)
def test_codes_survive_packing(bits):
    codec = CodebookCodec(K, bits)
    x = vectors(np.random.default_rng(1), 3)
    stored = codec.encode(x)

    decoded = codec.decode(stored, mx.float32)
    again = codec.encode(decoded)

    assert mx.array_equal(stored["codes"], codec.encode(x)["codes"])
    # A decoded vector is made of centroids times a norm; its direction gives the same codes.
    directions = decoded / mx.linalg.norm(x, axis=-1, keepdims=True)
    table = (lloyd_max(bits) / np.sqrt(K)).astype(np.float32)
    codes = np.array(unpack_bits(stored["codes"], bits))
    np.testing.assert_allclose(np.array(directions), table[codes], rtol=2e-3, atol=1e-7)
    assert again["codes"].shape == stored["codes"].shape


@pytest.mark.parametrize("tile", [codecs.TILE, B * H * K * 30])
def test_codebook_products_equal_products_with_decoded_vectors(tile, monkeypatch):
    monkeypatch.setattr(codecs, "TILE", tile)
    codec = CodebookCodec(K, 3)
    rng = np.random.default_rng(2)
    stored = codec.encode(vectors(rng, 100))
    decoded = codec.decode(stored, mx.float32)
    q, p = vectors(rng, 5), mx.array(rng.random((B, H, 5, 100)).astype(np.float32))

    assert mx.allclose(codec.scores(q, stored), q @ decoded.swapaxes(-1, -2), atol=1e-4)
    assert mx.allclose(codec.mix(p, stored), p @ decoded, atol=1e-3)


def test_affine_products_equal_products_with_decoded_vectors():
    codec = AffineCodec(K, 4)
    rng = np.random.default_rng(2)
    stored = codec.encode(vectors(rng, 40))
    decoded = codec.decode(stored, mx.float32)
    q = vectors(rng, 5)

    assert mx.allclose(codec.scores(q, stored), q @ decoded.swapaxes(-1, -2), atol=1e-4)


def test_growing_cache_takes_a_compressed_store():
    kv = KVCacheConfig(8, "hadamard")
    exact = GrowingKVCache(make_store(1, H, K, mx.float32, None), 64, B)
    coded = GrowingKVCache(make_store(1, H, K, mx.float32, kv), 64, B)

    assert float(mx.abs(run(exact, [30, 20]) - run(coded, [30, 20])).max()) < 0.06


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="kv_bits must be one of 2, 3, 4, 8, got 5"):
        KVCacheConfig(5)
    with pytest.raises(ValueError, match="kv_rotation must be one of .*, got 'rotor'"):
        KVCacheConfig(4, "rotor")
    with pytest.raises(ValueError, match="multiple of 32, got 80"):
        make_store(1, H, 80, mx.float32, KVCacheConfig(4, "none"))
    with pytest.raises(ValueError, match="a power of two, got 96"):
        make_store(1, H, 96, mx.float32, KVCacheConfig(4, "hadamard"))


@pytest.mark.parametrize("bits", KV_BITS)
def test_codes_are_those_of_the_nearest_centroids(bits):
    table = lloyd_max(bits) / np.sqrt(K)
    x = np.random.default_rng(3).standard_normal((1, 1, 400, K)).astype(np.float32)
    x[0, 0, :3] *= [[0], [1e-4], [1e4]]
    x[0, 0, 3, :] = 0
    x[0, 0, 3, 5] = 1  # all of a vector in one number, far beyond the table
    bounds = ((table[1:] + table[:-1]) / 2).astype(np.float32)
    unit = mx.array(x) / mx.maximum(mx.linalg.norm(mx.array(x), axis=-1, keepdims=True), 1e-8)

    codes = unpack_bits(CodebookCodec(K, bits).encode(mx.array(x))["codes"], bits)

    assert np.array_equal(np.array(codes), np.searchsorted(bounds, np.array(unit)))
