"""Broken folders give one clear line each, which names the file and the tensor or key."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests import tiny_checkpoints as tiny
from voxmlx.checkpoints.load import load_model
from voxmlx.errors import CheckpointError, ConfigError

WEIGHTS = tiny.internal_weights()
WHISPER = "mm_streams_embeddings.embedding_module.whisper_encoder"
Q_PROJ = "layers.1.attention.wq.weight"


def message(folder, kind=CheckpointError):
    with pytest.raises(kind) as info:
        load_model(folder)
    text = str(info.value)
    assert "\n" not in text
    return text


@pytest.fixture
def native(tmp_path):
    return tiny.write_folder(tmp_path, "native", WEIGHTS)


def rewrite(folder, change, layout="native"):
    """Write the weights again after ``change`` worked on their dictionary."""
    arrays = tiny.layout_weights(layout, WEIGHTS)
    change(arrays)
    name = "consolidated" if layout == "native" else "model"
    tiny.write_safetensors(folder / f"{name}.safetensors", arrays)


def test_no_such_folder(tmp_path):
    assert message(tmp_path / "no") == f"{tmp_path}/no: no such folder"


def test_empty_folder(tmp_path):
    assert message(tmp_path) == (
        f"{tmp_path}: no weights; expected model*.safetensors or consolidated.safetensors"
    )


def test_no_configuration(native):
    (native / "params.json").unlink()

    assert message(native) == f"{native}: no configuration; expected config.json or params.json"


def test_weights_under_another_name(native):
    (native / "consolidated.safetensors").rename(native / "weights.safetensors")

    assert message(native) == (
        f"{native}: none of its safetensors files is called model*.safetensors or "
        "consolidated.safetensors"
    )


def test_cut_short(native):
    path = native / "consolidated.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])

    assert re.fullmatch(
        rf"{path}: tensor '.+' ends at byte \d+ of the data, the file has only \d+; "
        "download it again",
        message(native),
    )


def test_corrupt_header(native):
    path = native / "consolidated.safetensors"
    content = bytearray(path.read_bytes())
    content[8:12] = b"\xff\xfe{{"
    path.write_bytes(bytes(content))

    assert message(native).startswith(f"{path}: the safetensors header is not JSON: ")


def test_missing_tensor(native):
    rewrite(native, lambda arrays: arrays.pop(Q_PROJ))

    assert message(native) == (
        f"{native}/consolidated.safetensors: tensor '{Q_PROJ}' is missing; download or convert the "
        "checkpoint again"
    )


def test_missing_layer(native):
    def change(arrays):
        for name in [n for n in arrays if n.startswith("layers.1.")]:
            del arrays[name]

    rewrite(native, change)

    assert message(native, ConfigError) == (
        f"{native}/params.json: the decoder has 2 layers, the weights have 1"
    )


def test_missing_tensors(native):
    def change(arrays):
        for name in [n for n in arrays if "ffn_norm" in n]:
            del arrays[name]

    rewrite(native, change)

    assert message(native) == (
        f"{native}/consolidated.safetensors: tensor '{WHISPER}.transformer.layers.0.ffn_norm."
        "weight' (and 3 more) is missing; download or convert the checkpoint again"
    )


def test_unknown_tensor(native):
    rewrite(native, lambda arrays: arrays.update({"layers.0.gate.weight": np.zeros((2, 2))}))

    assert message(native) == (
        f"{native}/consolidated.safetensors: unknown tensor 'layers.0.gate.weight'; "
        "voxtral_realtime in Mistral layout has none of that name"
    )


def test_a_bias_that_the_network_lacks(native):
    name = "layers.0.attention.wk.bias"
    rewrite(native, lambda arrays: arrays.update({name: np.zeros(64)}))

    assert message(native) == (
        f"{native}/consolidated.safetensors: tensor '{name}' has no place in the network that the "
        "configuration describes"
    )


def test_more_layers_than_the_configuration_says(native):
    tiny.write_json(native / "params.json", {**tiny.params(), "n_layers": 1})

    assert message(native, ConfigError) == (
        f"{native}/params.json: the decoder has 1 layers, the weights have 2"
    )


def test_wrong_shape(native):
    rewrite(native, lambda arrays: arrays.update({Q_PROJ: np.ones((256, 64))}))

    assert message(native) == (
        f"{native}/consolidated.safetensors: tensor '{Q_PROJ}' has shape (256, 64), expected "
        "(256, 128)"
    )


def test_wrong_type(native):
    rewrite(native, lambda arrays: arrays.update({Q_PROJ: np.ones((256, 128), np.uint8)}))

    assert message(native) == (
        f"{native}/consolidated.safetensors: tensor '{Q_PROJ}' has type uint8, expected floating "
        "point"
    )


def test_zeroed_matrix(native):
    rewrite(native, lambda arrays: arrays.update({Q_PROJ: np.zeros((256, 128))}))

    assert message(native) == (
        f"{native}/consolidated.safetensors: tensor '{Q_PROJ}' holds only zeros; the file is "
        "damaged"
    )


def test_one_row_of_zeros_is_allowed(native):
    def change(arrays):
        arrays[Q_PROJ] = arrays[Q_PROJ].copy()
        arrays[Q_PROJ][0] = 0

    rewrite(native, change)

    load_model(native)


def test_names_of_no_layout(native):
    tiny.write_safetensors(native / "consolidated.safetensors", {"blocks.0.w": np.ones(2)})

    text = message(native)

    assert text.startswith(
        f"{native}/consolidated.safetensors: its tensor names (first: 'blocks.0.w') belong to no "
        "known layout; known: "
    )
    assert "Mistral" in text and "Transformers" in text


def test_another_model_type(tmp_path):
    folder = tiny.write_folder(tmp_path, "hf")
    tiny.write_json(folder / "config.json", {"model_type": "whisper"})
    tiny.write_safetensors(folder / "model.safetensors", {"model.encoder.w": np.ones(2)})

    assert message(folder).endswith(" (model_type 'whisper')")


def test_configuration_of_another_layout(tmp_path):
    folder = tiny.write_folder(tmp_path, "hf", config=tiny.params())

    assert message(folder) == (
        f"{folder}/config.json: not a configuration that goes with tensors in Transformers "
        "layout; expected a transformers config.json"
    )


def test_configuration_is_not_json(native):
    (native / "params.json").write_text('{"dim": 128,')

    assert message(native, ConfigError) == (
        f"{native}/params.json: not valid JSON: Expecting property name enclosed in double "
        "quotes: line 1 column 13 (char 12)"
    )


def test_configuration_is_a_list(native):
    (native / "params.json").write_text("[1]")

    assert message(native, ConfigError) == (
        f"{native}/params.json: expected a JSON object, got list"
    )


def change_params(folder, path, value):
    values = tiny.params()
    section = values
    for key in path[:-1]:
        section = section[key]
    if value is None:
        del section[path[-1]]
    else:
        section[path[-1]] = value
    tiny.write_json(folder / "params.json", values)


ENCODER = ("multimodal", "whisper_model_args", "encoder_args")


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("n_heads",), None, ": key 'n_heads' is missing"),
        (("multimodal",), None, ": key 'multimodal' is missing"),
        (("dim",), "128", ": 'dim' must be of type int, got '128'"),
        (("dim",), True, ": 'dim' must be of type int, got True"),
        (("dim",), -1, ": DecoderConfig.dim must be a positive integer, got -1"),
        (("n_kv_heads",), 3, ": DecoderConfig.n_heads must be a multiple of n_kv_heads=3, got 8"),
        (("tied_embeddings",), False, ": 'tied_embeddings' must be True, got False"),
        (
            (*ENCODER, "causal"),
            False,
            ", multimodal, whisper_model_args, encoder_args: 'causal' must be True, got False",
        ),
        (
            (*ENCODER, "pos_embed"),
            "sinusoidal",
            ", multimodal, whisper_model_args, encoder_args: 'pos_embed' must be 'rope', got "
            "'sinusoidal'",
        ),
        (
            (*ENCODER, "sliding_window"),
            None,
            ", multimodal, whisper_model_args, encoder_args: key 'sliding_window' is missing",
        ),
        (
            ENCODER,
            5,
            ", multimodal, whisper_model_args: 'encoder_args' must be a JSON object, got 5",
        ),
    ],
)
def test_bad_params(native, path, value, expected):
    change_params(native, path, value)

    assert message(native, ConfigError) == f"{native}/params.json{expected}"


def test_scaled_rotary_angles(tmp_path):
    config = tiny.hf_config()
    config["text_config"]["rope_parameters"] = {"rope_type": "yarn", "rope_theta": 1e6}
    folder = tiny.write_folder(tmp_path, "hf", config=config)

    assert message(folder, ConfigError) == (
        f"{folder}/config.json, text_config, rope_parameters: 'rope_type' must be 'default', got "
        "'yarn'"
    )


def test_missing_shard(tmp_path):
    folder = tiny.write_folder(tmp_path, "hf")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")

    assert message(folder) == (
        f"{folder}/model-00002-of-00002.safetensors: this shard is missing (1 of 2 are); download "
        "the folder again"
    )


def test_index_names_a_missing_file(tmp_path):
    folder = tiny.write_folder(tmp_path, "hf")
    index = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    tiny.write_json(folder / "model.safetensors.index.json", index)

    assert message(folder).startswith(f"{folder}/model-00001-of-00001.safetensors: this shard is")


def test_empty_index(tmp_path):
    folder = tiny.write_folder(tmp_path, "hf")
    tiny.write_json(folder / "model.safetensors.index.json", {})

    assert message(folder, ConfigError) == (
        f"{folder}/model.safetensors.index.json: key 'weight_map' is missing or empty"
    )


def test_tensor_in_two_shards(tmp_path):
    folder = tiny.write_folder(tmp_path, "hf")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    tiny.write_safetensors(
        folder / "model-00002-of-00002.safetensors", {"audio_tower.norm.weight": np.ones(64)}
    )

    assert message(folder) == (
        f"{folder}/model-00002-of-00002.safetensors: tensor 'audio_tower.norm.weight' is also in "
        f"{folder}/model-00001-of-00002.safetensors"
    )


def test_one_weight_under_two_names(tmp_path):
    folder = tiny.write_folder(tmp_path, "hf")
    extra = {"model.audio_tower.norm.weight": np.ones(64)}
    rewrite(folder, lambda arrays: arrays.update(extra), "hf")

    assert message(folder) == (
        f"{folder}/model.safetensors: tensors 'audio_tower.norm.weight' and "
        "'model.audio_tower.norm.weight' are the same weight"
    )


def write_packed(folder, section, change=lambda arrays: None):
    tiny.write_folder(folder, "mlx_audio")
    paths = {"decoder.layers.0.mlp.up_proj"}
    packed = tiny.quantized(WEIGHTS, paths, bits=4, group_size=32)
    arrays = {tiny.mlx_audio_name(n): a for n, a in packed.items()}
    change(arrays)
    tiny.write_safetensors(folder / "model.safetensors", arrays)
    config = {**tiny.mlx_audio_config(), "quantization": section}
    tiny.write_json(folder / "config.json", config)


PACKED = "decoder.layers.0.feed_forward_w3"


def test_configuration_says_other_bits(tmp_path):
    write_packed(tmp_path, {"bits": 8, "group_size": 32})

    assert message(tmp_path) == (
        f"{tmp_path}/model.safetensors: tensor '{PACKED}.weight' is packed as 4 bits, group 32, "
        "affine, the configuration says 8 bits, group 32, affine"
    )


def test_scales_of_another_matrix(tmp_path):
    def change(arrays):
        arrays[f"{PACKED}.scales"] = arrays[f"{PACKED}.scales"][:, :3].copy()

    write_packed(tmp_path, {"bits": 4, "group_size": 32}, change)

    assert message(tmp_path) == (
        f"{tmp_path}/model.safetensors: tensor '{PACKED}.weight' has shape (192, 16) and scales "
        "(192, 3), which no quantisation of a (192, 128) matrix has"
    )


def test_offsets_missing(tmp_path):
    write_packed(
        tmp_path, {"bits": 4, "group_size": 32}, lambda arrays: arrays.pop(f"{PACKED}.biases")
    )

    # Without offsets the shapes are those of mxfp4.
    assert message(tmp_path) == (
        f"{tmp_path}/model.safetensors: tensor '{PACKED}.weight' is packed as 4 bits, group 32, "
        "mxfp4, the configuration says 4 bits, group 32, affine"
    )


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        (
            {"bits": 7, "group_size": 64},
            "bits of mode affine must be one of 2, 3, 4, 5, 6, 8, got 7",
        ),
        (
            {"bits": 4, "group_size": 48},
            "group size of mode affine must be one of 32, 64, 128, got 48",
        ),
        ([4], "'quantization' must be a JSON object, got [4]"),
    ],
)
def test_unknown_quantisation(tmp_path, section, expected):
    write_packed(tmp_path, section)

    assert message(tmp_path, ConfigError) == f"{tmp_path}/config.json: {expected}"


def test_unknown_quantisation_mode(tmp_path):
    write_packed(tmp_path, {"bits": 4, "group_size": 32, "mode": "gguf"})

    text = message(tmp_path, ConfigError)

    assert text.startswith(f"{tmp_path}/config.json: mode must be one of affine, mxfp4, nvfp4, ")
    assert text.endswith(", got 'gguf'")


def test_model_without_delay_conditioning(tmp_path):
    folder = tiny.write_folder(tmp_path, "hf")

    def change(arrays):
        for name in [n for n in arrays if "ada_rms_norm" in n]:
            del arrays[name]

    rewrite(folder, change, "hf")

    assert message(folder, ConfigError) == (
        f"{folder}/config.json, text_config: the model has no tensors for its delay conditioning"
    )
