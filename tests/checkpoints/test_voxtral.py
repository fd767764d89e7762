"""The offline model's layouts hold the same network, and what we write is what others read."""

from __future__ import annotations

import json

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.oracle import offline_native as native
from voxmlx.checkpoints.load import load_model, parameters
from voxmlx.checkpoints.save import save_model
from voxmlx.errors import CheckpointError, ConfigError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return native.write(tmp_path_factory.mktemp("native"), native.draw(3))


@pytest.fixture(scope="module")
def loaded(folder):
    return load_model(folder)


def same(a, b) -> bool:
    left, right = parameters(a.model), parameters(b.model)
    return set(left) == set(right) and all(mx.array_equal(left[k], right[k]).item() for k in left)


def test_native_configuration(loaded):
    config = loaded.config

    assert config.model_type == "voxtral"
    assert config.decoder.rope_theta == 1e8
    assert config.decoder.sliding_window is None and not config.decoder.tied_embeddings
    assert config.encoder.n_positions == 1500 and config.encoder.head_dim == 16
    assert config.audio.global_log_mel_max is None


def test_transformers_files_are_the_same_network(loaded, tmp_path):
    other = load_model(native.write(tmp_path, native.draw(3), "hf"))

    assert other.config == loaded.config
    assert same(other, loaded)


def test_names_as_in_memory(loaded, tmp_path):
    native.write(tmp_path, native.draw(3), "hf")
    path = tmp_path / "model.safetensors"
    state = {}
    for name, x in load_file(path).items():
        if name.startswith("language_model.lm_head"):
            name = "lm_head.weight"
        else:
            name = "model." + name.replace("language_model.model.", "language_model.")
        state[name] = x
    state["model.audio_tower.embed_positions.weight"] = np.zeros((1500, 64), np.float32)
    save_file(state, path)

    assert same(load_model(tmp_path), loaded)


def test_older_keys_of_the_configuration(loaded, tmp_path):
    native.write(tmp_path, native.draw(3), "hf")
    values = json.loads((tmp_path / "config.json").read_text())
    audio, text = values["audio_config"], values["text_config"]
    audio |= {
        "d_model": audio.pop("hidden_size"),
        "encoder_layers": audio.pop("num_hidden_layers"),
        "encoder_attention_heads": audio.pop("num_attention_heads"),
        "encoder_ffn_dim": audio.pop("intermediate_size"),
    }
    text["rope_theta"] = text.pop("rope_parameters")["rope_theta"]
    (tmp_path / "config.json").write_text(json.dumps(values))

    assert load_model(tmp_path).config == loaded.config


@pytest.mark.parametrize("quantized", [False, True])
def test_written_and_read_again(folder, tmp_path, quantized):
    model = load_model(folder)
    if quantized:
        nn.quantize(
            model.model,
            class_predicate=lambda path, m: hasattr(m, "to_quantized") and "encoder" not in path,
        )

    save_model(model.model, model.config, tmp_path)

    again = load_model(tmp_path)
    assert same(again, model)
    assert (again.config.quantization is not None) == quantized


def test_what_mlx_audio_reads(loaded, tmp_path):
    save_model(loaded.model, loaded.config, tmp_path)

    state = load_file(tmp_path / "model.safetensors")
    expected = native.hf_state(native.draw(3))
    assert set(state) == {*expected, "audio_tower.embed_positions.weight"}
    for name, x in expected.items():
        np.testing.assert_array_equal(state[name], x.swapaxes(1, 2) if x.ndim == 3 else x)
    assert state["audio_tower.embed_positions.weight"].shape == (1500, 64)
    audio = json.loads((tmp_path / "config.json").read_text())["audio_config"]
    assert audio["d_model"] == audio["hidden_size"] == 64
    assert audio["encoder_layers"] == 2 and audio["encoder_ffn_dim"] == 256


def test_causal_encoder_is_refused(tmp_path):
    native.write(tmp_path, native.draw(3))
    values = json.loads((tmp_path / "params.json").read_text())
    values["multimodal"]["whisper_model_args"]["encoder_args"]["causal"] = True
    (tmp_path / "params.json").write_text(json.dumps(values))

    with pytest.raises(ConfigError, match="'causal' must be False, got True"):
        load_model(tmp_path)


def test_missing_head_is_named(tmp_path):
    weights = native.draw(3)
    del weights["output.weight"]

    with pytest.raises(CheckpointError, match="tensor 'output.weight' is missing"):
        load_model(native.write(tmp_path, weights))
