"""Products by NumPy give what MLX gives."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import pytest

from voxmlx.cache.ring import RingKVCache
from voxmlx.cache.store import KVStore
from voxmlx.kernels.host import HostMatrix, attend, convolve, gated, gelu, on_host
from voxmlx.models.fuse import columns_first, prepare_for_inference
from voxmlx.models.layers import Attention, CausalConv1d
from voxmlx.models.random_model import TINY, random_model

needs_host = pytest.mark.skipif(not on_host(mx.float32), reason="this device needs no NumPy")


@pytest.mark.parametrize("n", [1, 2, 7, 64])
def test_matrix(n):
    weight = mx.random.normal((48, 32), key=mx.random.key(0))
    x = mx.random.normal((n, 32), key=mx.random.key(1))

    assert mx.allclose(HostMatrix(columns_first(weight))(x), x @ weight.T, atol=1e-5)


@pytest.mark.parametrize("n", [1, 3, 4])
def test_large_matrix(n):
    weight = mx.random.normal((1024, 512), key=mx.random.key(0))
    x = mx.random.normal((n, 512), key=mx.random.key(1))

    assert mx.allclose(HostMatrix(columns_first(weight))(x), x @ weight.T, atol=1e-3)


def test_matrix_leaves_other_types_alone():
    weight = mx.random.normal((8, 16), key=mx.random.key(0))
    x = mx.random.normal((4, 16), key=mx.random.key(1)).astype(mx.float16)

    assert mx.allclose(HostMatrix(weight)(x), x.astype(mx.float32) @ weight.T, atol=1e-2)


@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
def test_attention(n_kv_heads):
    queries = mx.random.normal((2, 4, 5, 16), key=mx.random.key(0))
    keys, values = mx.random.normal((2, 2, n_kv_heads, 9, 16), key=mx.random.key(1))
    mask = mx.random.bernoulli(0.5, (2, 1, 5, 9), key=mx.random.key(2))
    mask = mx.logical_or(mask, mx.arange(9) == 3)

    expected = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=0.3, mask=mask)

    assert mx.allclose(attend(queries, keys, values, 0.3, mask), expected, atol=1e-5)
    everything = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=0.3)
    assert mx.allclose(attend(queries, keys, values, 0.3), everything, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_convolution(stride):
    layer = CausalConv1d(6, 10, 3, stride)
    x = mx.random.normal((2, 12, 6), key=mx.random.key(0))
    padded = mx.concatenate([mx.zeros((2, 3 - stride, 6)), x], axis=1)
    filters = HostMatrix(layer.weight.reshape(10, -1))

    out = convolve(padded, filters, 3, stride) + layer.bias

    assert mx.allclose(out, layer(x), atol=1e-5)


@needs_host
@pytest.mark.parametrize("bits", [None, 6])
def test_a_prepared_model_multiplies_by_numpy(bits):
    mel = mx.random.normal((1, 64, 128), key=mx.random.key(0))
    model = random_model(TINY, mx.float32, bits)
    expected = model.embed_audio(mel)
    n_parameters = len(model.encoder.parameters())

    prepare_for_inference(model)

    assert model.decoder.layers[0].attention.by_host
    assert len(model.encoder.parameters()) == n_parameters
    assert mx.allclose(model.embed_audio(mel), expected, atol=2e-4)


@needs_host
@pytest.mark.parametrize("n_new", [1, 2, 8, 16])
def test_joined_attention_writes_and_reads_rings_as_mlx_does(n_new):
    """Rows of different age, a ring that wraps round, two queries a key."""
    attention = Attention(32, 4, 2, 16, 1e4)
    plain, joined = (RingKVCache(KVStore(1, 2, 16, mx.float32), 20, 16, 3, 1e4) for _ in "ab")
    for cache in (plain, joined):
        cache.reserve(36)
        cache.offsets = [0, 17, 70]
    joined.store.by_host = True
    for step in range(3):
        qkv = mx.random.normal((3 * n_new, 8 * 16), key=mx.random.key(step))
        heads = qkv.reshape(3, n_new, 8, 16).transpose(0, 2, 1, 3)
        index, by_host = plain.prepare(n_new), joined.prepare(n_new)
        qk = attention._rotate(heads[:, :6], index.offset)
        expected = plain.attend(0, qk[:, :4], qk[:, 4:], heads[:, 6:], index, 0.25)
        found = joined.attend_joined(0, qkv, by_host, 4, 1e4)
        plain.advance([n_new, 1, n_new])
        joined.advance([n_new, 1, n_new])

        assert by_host.in_place and not index.in_place
        expected = expected.transpose(0, 2, 1, 3).reshape(3 * n_new, -1)
        assert mx.allclose(found, expected, atol=2e-5)
    for name, rings in joined.store.buffers.items():
        assert mx.allclose(rings[0], plain.store.buffers[name][0], atol=2e-5)


def test_gate():
    y = mx.random.normal((5, 12), key=mx.random.key(0)) * 40

    assert mx.allclose(gated(y), nn.silu(y[:, :6]) * y[:, 6:], atol=1e-4)


def test_gelu():
    x = mx.concatenate([mx.linspace(-12, 12, 4001), mx.array([0.0, -1e-6, 1e-6, 80, -80])])

    assert float(mx.abs(gelu(x) - nn.gelu(x)).max()) < 6e-7
    assert gelu(x.reshape(2, -1, 1)[:, :2]).shape == (2, 2, 1)
