"""Joined projections compute what the separate ones do, and a model saves as before."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten

from tests.generation.tiny_model import quantized, random_audio, tiny_realtime
from voxmlx.generation.step import DecodeState, decode_step
from voxmlx.kernels.host import on_host
from voxmlx.models import fuse
from voxmlx.models.fuse import can_join, prepare_for_inference


@pytest.fixture(params=[0, 10**8], autouse=True)
def max_unpacked(request, monkeypatch):
    """With and without unpacked copies of packed matrices."""
    monkeypatch.setattr(fuse, "MAX_UNPACKED", request.param)


def logits_of(model):
    state = DecodeState(model.decoder.make_cache(8), model.decoder.conditioning(6))
    tokens = mx.array([[1, 5, 7, 2]])
    return decode_step(model, state, tokens, random_audio(4, seed=0, dtype=model.dtype), 4)


def audio_of(model):
    return model.embed_audio(mx.random.normal((1, 48, 128), key=mx.random.key(1)))


@pytest.mark.parametrize("change", [lambda model: model, quantized])
def test_joined_layers_change_no_result(change):
    plain, joined = change(tiny_realtime()), change(tiny_realtime())
    prepare_for_inference(joined)

    assert joined.decoder.layers[0].attention._qkv is not None
    assert joined.encoder.layers[0].mlp._gate_up is not None
    assert mx.allclose(logits_of(joined), logits_of(plain), atol=2e-5)
    assert mx.allclose(audio_of(joined), audio_of(plain), atol=2e-5)


@pytest.mark.parametrize("change", [lambda model: model, quantized])
def test_parameters_stay_as_they_were(change, tmp_path):
    plain, joined = change(tiny_realtime()), change(tiny_realtime())
    prepare_for_inference(joined)
    before, after = dict(tree_flatten(plain.parameters())), dict(tree_flatten(joined.parameters()))
    mx.save_safetensors(str(tmp_path / "joined.safetensors"), after)

    assert list(after) == list(before)
    saved = mx.load(str(tmp_path / "joined.safetensors"))
    assert all(mx.array_equal(saved[name], before[name]) for name in before)


def test_layers_packed_differently_stay_apart():
    model = tiny_realtime()
    attention = model.decoder.layers[0].attention
    attention.q_proj = attention.q_proj.to_quantized(32, 8)
    attention.k_proj = attention.k_proj.to_quantized(32, 4)
    attention.v_proj = attention.v_proj.to_quantized(32, 4)
    expected = logits_of(model)

    assert not can_join([attention.q_proj, attention.k_proj, attention.v_proj])
    prepare_for_inference(model)
    assert attention._qkv is None
    assert mx.allclose(logits_of(model), expected, atol=2e-5)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_half_precision_stays_half(dtype):
    model = tiny_realtime(dtype=dtype)
    prepare_for_inference(model)

    assert logits_of(model).dtype == dtype
    assert audio_of(model).dtype == dtype


@pytest.mark.parametrize("n_rows", [3, 70])
@pytest.mark.parametrize("mode", ["affine", "nvfp4"])
def test_packed_layers_give_the_same_by_host(n_rows, mode, monkeypatch):
    monkeypatch.setattr(fuse, "MAX_UNPACKED", 0)
    layers = [nn.Linear(64, n, bias=n == 48) for n in (32, 48)]
    packed = [layer.to_quantized(16 if mode == "nvfp4" else 32, 4, mode) for layer in layers]
    x = mx.random.normal((n_rows, 64), key=mx.random.key(1))
    expected = [layer(x) for layer in packed]

    joined = fuse.JoinedLinear(packed)(x)
    model = nn.Sequential(packed[1])
    prepare_for_inference(model)

    assert mx.allclose(joined, mx.concatenate(expected, axis=1), atol=1e-4)
    assert mx.allclose(fuse.linear(packed[1], x), expected[1], atol=1e-4)
    assert (fuse.HOST in packed[1]) == (mode == "affine" and on_host(mx.float32))
