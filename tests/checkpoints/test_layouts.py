"""Every layout gives the same weights; names and arrangement go both ways."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from tests import tiny_checkpoints as tiny
from voxmlx.checkpoints.checkpoint import open_checkpoint
from voxmlx.checkpoints.hf import HF_REALTIME
from voxmlx.checkpoints.layout import interleave_rows, split_rows
from voxmlx.checkpoints.load import load_model, parameters
from voxmlx.checkpoints.mistral import MISTRAL_REALTIME
from voxmlx.checkpoints.mlx_audio import MLX_AUDIO_REALTIME
from voxmlx.checkpoints.old_voxmlx import OLD_VOXMLX_REALTIME
from voxmlx.checkpoints.safetensors import LazyTensor, TensorSpec

LAYOUTS = {
    "native": MISTRAL_REALTIME,
    "hf": HF_REALTIME,
    "mlx_audio": MLX_AUDIO_REALTIME,
    "old_voxmlx": OLD_VOXMLX_REALTIME,
}


@pytest.fixture(scope="module")
def weights():
    return tiny.internal_weights()


def assert_same(model, weights):
    got = parameters(model)
    assert set(got) == set(weights)
    for name, array in weights.items():
        assert np.array_equal(np.asarray(got[name].astype(mx.float32)), array), name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_loads_the_same_weights(tmp_path, weights, layout):
    folder = tiny.write_folder(tmp_path / "any name", layout, weights)

    loaded = load_model(folder)

    assert loaded.layout is LAYOUTS[layout]
    assert loaded.tokenizer_path == folder / "tekken.json"
    assert_same(loaded.model, weights)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_configuration_of_every_layout_is_the_same(tmp_path, layout):
    config = open_checkpoint(tiny.write_folder(tmp_path, layout)).config
    expected = open_checkpoint(tiny.write_folder(tmp_path / "native", "native")).config

    assert config == expected
    assert config.encoder.sliding_window == 24
    assert config.decoder.sliding_window == 20
    assert config.decoder.ada_dim == 32
    assert config.delay_ms == 480


@pytest.mark.parametrize("layout", LAYOUTS)
def test_names_go_both_ways(weights, layout):
    outside = tiny.layout_weights(layout, weights)

    for name, other in zip(weights, outside, strict=True):
        assert LAYOUTS[layout].internal_name(other) == name
        assert LAYOUTS[layout].external_name(name) == other


@pytest.mark.parametrize("layout", LAYOUTS)
def test_arrangement_goes_both_ways(tmp_path, weights, layout):
    config = open_checkpoint(tiny.write_folder(tmp_path, layout)).config
    expected = tiny.layout_weights(layout, weights)

    for name, array in weights.items():
        spec = TensorSpec(name, array.shape, mx.float32)
        tensor = LazyTensor(spec, Path(), lambda a=array: mx.array(a))
        outside = LAYOUTS[layout].to_external(tensor, config)
        back = LAYOUTS[layout].to_internal(outside, name, config)
        assert np.array_equal(np.asarray(outside.read()), expected[outside.spec.name])
        assert outside.spec.shape == expected[outside.spec.name].shape
        assert back.spec == spec
        assert np.array_equal(np.asarray(back.read()), array)


def test_rows_of_a_head():
    x = mx.arange(16)

    halves = split_rows(x, n_heads=2)

    assert halves.tolist() == [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15]
    assert interleave_rows(halves, n_heads=2).tolist() == x.tolist()


def older_name(name):
    """What Transformers calls a weight in memory."""
    return "model." + name.replace("language_model.model.", "language_model.")


def test_hf_names_as_in_memory_with_a_tied_head(tmp_path, weights):
    folder = tiny.write_folder(tmp_path, "hf", weights)
    arrays = {older_name(n): a for n, a in tiny.layout_weights("hf", weights).items()}
    arrays["lm_head.weight"] = weights["decoder.embed_tokens.weight"]
    tiny.write_safetensors(folder / "model.safetensors", arrays)

    assert_same(load_model(folder).model, weights)


def test_hf_names_with_the_inner_model_twice(tmp_path, weights):
    folder = tiny.write_folder(tmp_path, "hf", weights)
    written = tiny.layout_weights("hf", weights).items()
    doubled = {
        n.replace("language_model.model.", "language_model.model.model."): a for n, a in written
    }
    assert doubled.keys() != dict(written).keys()
    tiny.write_safetensors(folder / "model.safetensors", doubled)
    assert_same(load_model(folder).model, weights)


def test_mistral_skips_a_tied_output(tmp_path, weights):
    folder = tiny.write_folder(tmp_path, "native", weights)
    arrays = tiny.layout_weights("native", weights)
    arrays["output.weight"] = weights["decoder.embed_tokens.weight"]
    tiny.write_safetensors(folder / "consolidated.safetensors", arrays)

    assert_same(load_model(folder).model, weights)


def test_hf_config_with_the_older_theta(tmp_path):
    config = tiny.hf_config()
    for part in ("audio_config", "text_config"):
        del config[part]["rope_parameters"]
    config["text_config"]["rope_theta"] = 5e5
    folder = tiny.write_folder(tmp_path, "hf", config=config)

    result = open_checkpoint(folder).config

    assert result.decoder.rope_theta == 5e5
    assert result.encoder.rope_theta == 1e6


def test_hf_config_gives_the_delay(tmp_path):
    config = {**tiny.hf_config(), "default_num_delay_tokens": 12}

    assert open_checkpoint(tiny.write_folder(tmp_path, "hf", config=config)).config.delay_ms == 960


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("value", "expected"), [(960, 960), (None, 480), ("x", 480), (-80, 480)])
def test_tekken_gives_the_delay_that_no_configuration_names(tmp_path, layout, value, expected):
    config = tiny.CONFIGS[layout]()
    for name in ("transcription_delay_ms", "default_num_delay_tokens"):
        config.pop(name, None)
    folder = tiny.write_folder(tmp_path, layout, config=config)
    tekken = json.loads((folder / "tekken.json").read_text())
    tekken["audio"]["transcription_delay_ms"] = value
    tiny.write_json(folder / "tekken.json", tekken)

    assert open_checkpoint(folder).config.delay_ms == expected


def test_configuration_goes_before_tekken(tmp_path):
    config = {**tiny.hf_config(), "default_num_delay_tokens": 3}
    assert open_checkpoint(tiny.write_folder(tmp_path, "hf", config=config)).config.delay_ms == 240


def test_delay_without_a_tokenizer(tmp_path):
    folder = tiny.write_folder(tmp_path, "native")
    (folder / "tekken.json").unlink()

    assert open_checkpoint(folder).config.delay_ms == 480


def test_mlx_audio_config_gives_delay_and_padding(tmp_path):
    config = {**tiny.mlx_audio_config(), "transcription_delay_ms": 240, "n_left_pad_tokens": 16}

    result = open_checkpoint(tiny.write_folder(tmp_path, "mlx_audio", config=config)).config

    assert (result.delay_ms, result.n_left_pad_tokens) == (240, 16)


def test_mlx_audio_config_with_audio_keys_at_the_top(tmp_path):
    config = tiny.mlx_audio_config()
    args = config["encoder_args"].pop("audio_encoding_args")
    config["audio_encoding_args"] = {**args, "global_log_mel_max": 2.0}

    result = open_checkpoint(tiny.write_folder(tmp_path, "mlx_audio", config=config)).config

    assert result.audio.global_log_mel_max == 2.0


def test_mlx_audio_names_with_hf_keys(tmp_path, weights):
    folder = tiny.write_folder(tmp_path, "mlx_audio", weights, config=tiny.hf_config())

    loaded = load_model(folder)

    assert loaded.layout.name == "mlx-audio"
    assert_same(loaded.model, weights)


def test_mistral_names_with_mlx_audio_config(tmp_path, weights):
    """What an early converter wrote: float16, norms and biases float32, kernels in the middle."""
    folder = tiny.write_folder(tmp_path, "mlx_audio")
    arrays = tiny.layout_weights("native", weights)
    for name, array in arrays.items():
        if array.ndim == 3:
            arrays[name] = np.ascontiguousarray(array.swapaxes(1, 2))
    tiny.write_safetensors(folder / "model.safetensors", arrays)

    loaded = load_model(folder)

    assert loaded.layout.name == "mlx-audio with Mistral's names"
    assert_same(loaded.model, weights)


def test_unknown_keys_are_reported(tmp_path, caplog):
    config = {**tiny.params(), "n_experts": 8}

    open_checkpoint(tiny.write_folder(tmp_path, "native", config=config))

    assert caplog.messages == [f"{tmp_path}/params.json: unknown keys have no effect: n_experts"]


def test_known_configurations_report_nothing(tmp_path, caplog):
    for layout in LAYOUTS:
        open_checkpoint(tiny.write_folder(tmp_path / layout, layout))

    assert caplog.messages == []
