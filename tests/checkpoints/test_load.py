"""Which files are taken, what is quantised and which types the weights get."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from tests import tiny_checkpoints as tiny
from voxmlx.checkpoints.load import load_model, parameters
from voxmlx.quantization.modes import dequantize, make_quantization
from voxmlx.quantization.recipes import is_quantizable


@pytest.fixture(scope="module")
def weights():
    return tiny.internal_weights()


def matrices(weights):
    return {
        n.removesuffix(".weight") for n, a in weights.items() if a.ndim == 2 and is_quantizable(n)
    }


def write_quantized(folder, weights, paths, setting, section, layout="mlx_audio", dtype="F32"):
    tiny.write_folder(folder, layout)
    packed = tiny.quantized(weights, paths, setting.bits, setting.group_size, setting.mode)
    namer = tiny.mlx_audio_name if layout == "mlx_audio" else tiny.old_voxmlx_name
    arrays = {namer(name): array for name, array in packed.items()}
    tiny.write_safetensors(folder / "model.safetensors", arrays, dtype)
    config = tiny.CONFIGS[layout]() | ({} if section is None else {"quantization": section})
    tiny.write_json(folder / "config.json", config)
    return packed


def assert_packed(model, packed):
    got = parameters(model)
    assert set(got) == set(packed)
    for name, array in packed.items():
        assert np.array_equal(np.asarray(got[name]), array), name


@pytest.mark.parametrize(
    ("mode", "bits", "group_size"),
    [
        *(("affine", bits, 32) for bits in (2, 3, 4, 5, 6, 8)),
        ("affine", 4, 64),
        ("mxfp4", 4, 32),
        ("nvfp4", 4, 16),
        ("mxfp8", 8, 32),
    ],
)
def test_every_mode_loads(tmp_path, weights, mode, bits, group_size):
    setting = make_quantization(mode, bits, group_size)
    section = {"group_size": group_size, "bits": bits, "mode": mode}

    packed = write_quantized(tmp_path, weights, matrices(weights), setting, section)

    assert_packed(load_model(tmp_path).model, packed)


def test_only_modules_with_scales_are_quantised(tmp_path, weights):
    """As in files whose embedding and adapter stayed in floating point."""
    paths = {p for p in matrices(weights) if ".layers." in p}
    setting = make_quantization("affine", 4, 64)
    packed = write_quantized(tmp_path, weights, paths, setting, {"group_size": 64, "bits": 4})

    model = load_model(tmp_path).model

    assert_packed(model, packed)
    assert "scales" not in model.decoder.embed_tokens
    assert "scales" in model.decoder.layers[0].attention.q_proj


def test_old_voxmlx_quantises_the_conditioning_too(tmp_path, weights):
    paths = matrices(weights) | {f"decoder.layers.{i}.ada_norm.linear_1" for i in range(2)}
    setting = make_quantization("affine", 6, 64)
    packed = write_quantized(
        tmp_path, weights, paths, setting, {"group_size": 64, "bits": 6}, "old_voxmlx"
    )

    loaded = load_model(tmp_path)

    assert_packed(loaded.model, packed)
    assert loaded.model.decoder.conditioning(6).dtype == mx.float32


def test_modules_have_settings_of_their_own(tmp_path, weights):
    encoder = {p for p in matrices(weights) if p.startswith("encoder")}
    packed = tiny.quantized(weights, matrices(weights) - encoder, 4, 64)
    packed = tiny.quantized(packed, encoder, 8, 32)
    tiny.write_folder(tmp_path, "mlx_audio")
    arrays = {tiny.mlx_audio_name(n): a for n, a in packed.items()}
    tiny.write_safetensors(tmp_path / "model.safetensors", arrays)
    overrides = {
        tiny.mlx_audio_name(f"{path}.weight").removesuffix(".weight"): {
            "group_size": 32,
            "bits": 8,
        }
        for path in encoder
    }
    section = {"group_size": 64, "bits": 4, "mode": "affine", **overrides}
    tiny.write_json(
        tmp_path / "config.json", {**tiny.mlx_audio_config(), "quantization_config": section}
    )

    loaded = load_model(tmp_path)

    assert_packed(loaded.model, packed)
    assert loaded.model.encoder.layers[0].mlp.up_proj.bits == 8
    assert loaded.model.decoder.layers[0].mlp.up_proj.bits == 4
    assert loaded.config.quantization.of("encoder.layers.1.attention.v_proj").group_size == 32


def test_settings_are_found_without_a_configuration(tmp_path, weights):
    setting = make_quantization("affine", 5, 32)
    packed = write_quantized(tmp_path, weights, matrices(weights), setting, None)

    assert_packed(load_model(tmp_path).model, packed)


def test_packed_weights_stand_for_the_source(tmp_path, weights):
    setting = make_quantization("affine", 8, 32)
    write_quantized(tmp_path, weights, matrices(weights), setting, {"group_size": 32, "bits": 8})

    module = load_model(tmp_path).model.decoder.layers[1].mlp.down_proj
    arrays = {"weight": module.weight, "scales": module.scales, "biases": module.biases}

    expected = weights["decoder.layers.1.mlp.down_proj.weight"]
    got = np.asarray(dequantize(arrays, setting, mx.float32))
    # One step of 8 bits over a group's range, which is under 8 standard deviations; MLX moves the
    # scale so that zero is exact, which costs up to half a step more than rounding.
    assert np.abs(got - expected).max() <= 8 * expected.std() / 255


@pytest.mark.parametrize(("stored", "dtype"), [("F16", mx.float16), ("BF16", mx.bfloat16)])
def test_stored_type_is_kept(tmp_path, weights, stored, dtype):
    folder = tiny.write_folder(tmp_path, "native", weights, dtype=stored)

    model = load_model(folder).model

    assert {a.dtype for a in parameters(model).values()} == {dtype}


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_type_can_be_chosen(tmp_path, weights, dtype):
    folder = tiny.write_folder(tmp_path, "hf", weights)

    got = parameters(load_model(folder, dtype).model)

    for name, array in weights.items():
        assert mx.array_equal(got[name], mx.array(array).astype(dtype)), name


def test_scales_get_the_chosen_type_and_codes_stay(tmp_path, weights):
    """Or float16 scales would turn bfloat16 activations into float32."""
    setting = make_quantization("affine", 4, 32)
    section = {"group_size": 32, "bits": 4}
    packed = write_quantized(tmp_path, weights, matrices(weights), setting, section, dtype="F16")

    got = parameters(load_model(tmp_path, mx.bfloat16).model)

    for name, array in packed.items():
        expected = mx.uint32 if array.dtype == np.uint32 else mx.bfloat16
        assert got[name].dtype == expected, name


def test_mixed_types_become_the_most_frequent_one(tmp_path, weights):
    folder = tiny.write_folder(tmp_path, "mlx_audio")
    arrays = {}
    for name, array in tiny.layout_weights("mlx_audio", weights).items():
        small = "norm" in name or name.endswith(".bias")
        arrays[name] = mx.array(array).astype(mx.float32 if small else mx.float16)
    mx.save_safetensors(str(folder / "model.safetensors"), arrays)

    got = parameters(load_model(folder).model)

    assert {a.dtype for a in got.values()} == {mx.float16}


def split_shards(folder, arrays, count):
    names = list(arrays)
    files = [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
    parts = [names[i::count] for i in range(count)]
    for file, part in zip(files, parts, strict=True):
        tiny.write_safetensors(folder / file, {n: arrays[n] for n in part})
    return {name: file for file, part in zip(files, parts, strict=True) for name in part}


@pytest.mark.parametrize("with_index", [True, False])
def test_sharded_weights(tmp_path, weights, with_index):
    folder = tiny.write_folder(tmp_path, "hf")
    (folder / "model.safetensors").unlink()
    weight_map = split_shards(folder, tiny.layout_weights("hf", weights), 3)
    if with_index:
        tiny.write_json(folder / "model.safetensors.index.json", {"weight_map": weight_map})

    got = parameters(load_model(folder).model)

    assert all(np.array_equal(np.asarray(got[n]), a) for n, a in weights.items())


def test_stale_consolidated_file_is_not_mixed_in(tmp_path, weights):
    """mlx-audio's converter copies the source's files along."""
    folder = tiny.write_folder(tmp_path, "native", tiny.internal_weights(seed=1))
    tiny.write_folder(folder, "mlx_audio", weights)

    loaded = load_model(folder)

    assert loaded.layout.name == "mlx-audio"
    got = parameters(loaded.model)
    assert all(np.array_equal(np.asarray(got[n]), a) for n, a in weights.items())


def test_release_folder_with_both_weights(tmp_path, weights):
    folder = tiny.write_folder(tmp_path, "native", weights)
    tiny.write_folder(folder, "hf", weights)

    assert load_model(folder).layout.name == "Transformers"


def test_model_file_without_its_configuration_gives_way(tmp_path, weights):
    """model.safetensors and config.json do not belong together; the other pair does."""
    folder = tiny.write_folder(tmp_path, "native", weights)
    tiny.write_folder(folder, "old_voxmlx", weights, config=tiny.hf_config())

    assert load_model(folder).layout.name == "Mistral"


def test_consolidated_beside_hf_configuration(tmp_path, weights):
    folder = tiny.write_folder(tmp_path, "native", weights)
    (folder / "params.json").unlink()
    tiny.write_json(folder / "config.json", tiny.hf_config())

    got = parameters(load_model(folder).model)

    assert all(np.array_equal(np.asarray(got[n]), a) for n, a in weights.items())


def test_lazy_loading_gives_the_same_weights(tmp_path, weights):
    folder = tiny.write_folder(tmp_path, "hf", weights)

    got = parameters(load_model(folder, lazy=True).model)

    assert all(np.array_equal(np.asarray(got[n]), a) for n, a in weights.items())
