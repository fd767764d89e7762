"""Rotated matrices: same product, smaller loss where columns stand out, whole way through files."""

from __future__ import annotations

import json

import mlx.core as mx
import mlx.nn as nn
import pytest

from tests import tiny_checkpoints as tiny
from voxmlx.checkpoints.load import load_model, parameters
from voxmlx.checkpoints.save import save_model
from voxmlx.config import QuantizationConfig
from voxmlx.errors import CheckpointError
from voxmlx.models.fuse import JoinedLinear, can_join, prepare_for_inference
from voxmlx.quantization.modes import ROTATED, dequantize, make_quantization, quantize
from voxmlx.quantization.rotated import (
    RotatedEmbedding,
    RotatedLinear,
    quantize_modules,
    setting_of,
)

INT8 = make_quantization(ROTATED, 8)
INT4 = make_quantization(ROTATED, 4)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(50, 256)
        self.layers = [nn.Linear(256, 64), nn.Linear(256, 32, bias=False)]


def net():
    mx.random.seed(0)
    return Net()


def test_layers_compute_what_they_did():
    plain, packed = net(), net()
    quantize_modules(packed, {"table": INT8, "layers.0": INT8})
    x = mx.random.normal((5, 256), key=mx.random.key(1))
    ids = mx.array([[3, 49], [0, 7]])

    assert type(packed.table) is RotatedEmbedding and type(packed.layers[0]) is RotatedLinear
    assert type(packed.layers[1]) is nn.Linear
    assert setting_of(packed.table) == INT8 and setting_of(packed.layers[1]) is None
    assert mx.allclose(packed.layers[0](x), plain.layers[0](x), atol=0.03)
    assert packed.table(ids).shape == (2, 2, 256)
    assert mx.allclose(packed.table(ids), plain.table(ids), atol=0.02)
    assert mx.allclose(packed.table.as_linear(x), plain.table.as_linear(x), atol=0.2)


def test_columns_that_stand_out_cost_less():
    w = mx.random.normal((128, 512), key=mx.random.key(2)) * 0.02
    w[:, ::32] = w[:, ::32] * 10

    def error(setting: QuantizationConfig) -> float:
        back = dequantize(quantize(w, setting), setting, mx.float32)
        return (mx.linalg.norm(back - w) / mx.linalg.norm(w)).item()

    assert error(INT4) < 0.09
    assert error(INT4) < 0.65 * error(make_quantization(bits=4))


def test_joined_layers_share_one_rotation():
    packed = net()
    quantize_modules(packed, {"layers.0": INT4, "layers.1": INT4})
    x = mx.random.normal((5, 256), key=mx.random.key(1))
    apart = mx.concatenate([layer(x) for layer in packed.layers], axis=-1)

    assert can_join(packed.layers)
    assert mx.allclose(JoinedLinear(packed.layers)(x), apart, atol=1e-5)


def test_layers_of_different_rotation_are_not_joined():
    packed = net()
    quantize_modules(packed, {"layers.0": INT4, "layers.1": make_quantization(bits=4)})

    assert not can_join(packed.layers)


def test_a_model_laid_out_for_this_machine_gives_the_same_logits(folder):
    tokens, audio = mx.array([[1, 2, 3]]), mx.random.normal((1, 3, 128), key=mx.random.key(0))
    mel = mx.random.normal((1, 16, 128), key=mx.random.key(1))
    model = load_model(folder, mx.float32).model

    def outputs() -> list[mx.array]:
        hidden = model(tokens, audio, model.decoder.make_cache(3), model.decoder.conditioning(6))
        found = [model.decoder.logits(hidden), model.embed_audio(mel)]
        mx.eval(found)
        return found

    before = outputs()
    prepare_for_inference(model)

    for a, b in zip(before, outputs(), strict=True):
        assert mx.allclose(a, b, atol=1e-4 * mx.abs(a).max().item())


@pytest.fixture
def folder(tmp_path):
    """A checkpoint whose 128-wide matrices are rotated, the embedding among them."""
    source = tiny.write_folder(tmp_path / "source", "mlx_audio", tiny.internal_weights(2))
    loaded = load_model(source)
    settings = {
        path: make_quantization(ROTATED, 4, 32)
        for path, module in loaded.model.named_modules()
        if isinstance(module, nn.Linear | nn.Embedding)
        and module.weight.shape[1] % 128 == 0
        and "norm" not in path
    }
    quantize_modules(loaded.model, settings)
    save_model(loaded.model, loaded.config, tmp_path / "rotated")
    return tmp_path / "rotated"


def test_a_saved_model_loads_bit_by_bit(folder, tmp_path):
    loaded = load_model(folder)
    save_model(loaded.model, loaded.config, tmp_path / "again")
    again = load_model(tmp_path / "again")

    kinds = {path: type(m) for path, m in loaded.model.named_modules()}
    assert kinds["decoder.embed_tokens"] is RotatedEmbedding
    assert kinds["decoder.layers.0.attention.q_proj"] is RotatedLinear
    first, second = parameters(loaded.model), parameters(again.model)
    assert first.keys() == second.keys()
    assert all(mx.array_equal(first[name], second[name]) for name in first)
    tokens = mx.array([[1, 2, 3]])
    audio = mx.random.normal((1, 3, 128), key=mx.random.key(0))
    outputs = [
        model(tokens, audio, model.decoder.make_cache(3), model.decoder.conditioning(6))
        for model in (loaded.model, again.model)
    ]
    assert mx.array_equal(*outputs)


def test_the_configuration_names_a_mode_that_other_readers_refuse(folder):
    section = json.loads((folder / "config.json").read_text())["quantization"]

    assert section["mode"] == ROTATED
    with pytest.raises(ValueError, match="affine_hadamard"):
        nn.quantize(net(), section["group_size"], section["bits"], mode=section["mode"])


def test_a_configuration_that_says_rotated_where_blocks_do_not_fit_is_refused(folder):
    values = json.loads((folder / "config.json").read_text())
    values["quantization"]["bits"] = values["quantization_config"]["bits"] = 8
    (folder / "config.json").write_text(json.dumps(values))

    with pytest.raises(CheckpointError, match="the configuration says 8 bits"):
        load_model(folder)
