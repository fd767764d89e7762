"""Attention to codes gives what their unpacked numbers give."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from voxmlx.cache.codecs import CodebookCodec
from voxmlx.cache.quantized import QuantizedKVStore
from voxmlx.cache.ring import RingKVCache
from voxmlx.config import KV_BITS, KV_ROTATIONS, KVCacheConfig
from voxmlx.kernels import packed
from voxmlx.kernels.bits import unpack_bits

cuda = pytest.mark.skipif(not mx.cuda.is_available(), reason="needs a CUDA device")

H, WINDOW = 2, 40


def outputs(kv, dtype, K, offsets, monkeypatch, by_kernel):
    """What a step of one position gives in rows of a ring of random codes."""
    monkeypatch.setattr("voxmlx.cache.quantized.reads_codes", lambda *heads: by_kernel)
    store = QuantizedKVStore(1, H, K, dtype, kv)
    cache = RingKVCache(store, WINDOW, 8, len(offsets), 1e6, 10**6)
    rng = np.random.default_rng(0)

    def draw(n_heads, n):
        return mx.array(rng.standard_normal((len(offsets), n_heads, n, K))).astype(dtype)

    for side in ("keys", "values"):
        for name, x in store._codec.encode(draw(H, cache.capacity)).items():
            store.buffers[f"{side}.{name}"][0] = x
    cache.offsets = list(offsets)
    index = cache.prepare(1)
    out = cache.attend(0, draw(4 * H, 1), draw(H, 1), draw(H, 1), index, K**-0.5)
    return np.array(out.astype(mx.float32))


@cuda
@pytest.mark.parametrize("rotation", KV_ROTATIONS)
@pytest.mark.parametrize("bits", KV_BITS)
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
@pytest.mark.parametrize("K", [64, 128])
def test_codes_are_read_as_they_are_unpacked(K, dtype, bits, rotation, monkeypatch):
    kv = KVCacheConfig(bits, rotation)
    offsets = [0, 5, 39, 200]

    one, other = (outputs(kv, dtype, K, offsets, monkeypatch, x) for x in (True, False))

    np.testing.assert_allclose(one, other, atol=3e-3 if dtype == mx.float32 else 3e-2)


@pytest.mark.skipif(mx.default_device().type == mx.gpu, reason="for CPUs")
def test_other_devices_unpack():
    assert not packed.reads_codes(8, 2, 128)


@cuda
@pytest.mark.parametrize("heads", [(8, 2, 80), (16, 2, 128)])
def test_unknown_heads_are_unpacked(heads):
    assert not packed.reads_codes(*heads)


@cuda
@pytest.mark.parametrize("bits", KV_BITS)
@pytest.mark.parametrize("K", [64, 128])
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_codes_of_a_table(dtype, K, bits, monkeypatch):
    codec = CodebookCodec(K, bits)
    x = np.random.default_rng(0).standard_normal((1, 2, 37, K))
    x[0, 1, 5] = 0
    vectors = mx.array(x).astype(dtype)

    got = codec.encode(vectors)
    monkeypatch.setattr("voxmlx.cache.codecs.has_kernels", lambda width: False)
    expected = codec.encode(vectors)

    assert {n: (a.shape, a.dtype) for n, a in got.items()} == {
        n: (a.shape, a.dtype) for n, a in expected.items()
    }
    assert mx.allclose(got["norms"], expected["norms"], rtol=1e-3)
    codes = [np.array(unpack_bits(p["codes"], bits)).astype(int) for p in (got, expected)]
    apart = np.abs(codes[0] - codes[1])
    assert apart.max() <= 1 and (apart > 0).mean() < 1e-3  # next to a middle, rounding decides
