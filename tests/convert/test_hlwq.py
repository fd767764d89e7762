"""Writing HLWQ, reading it again, and going on from it."""

from __future__ import annotations

import json

import mlx.core as mx
import numpy as np
import pytest

from tests import tiny_checkpoints as tiny
from voxmlx.checkpoints.load import load_model, parameters
from voxmlx.errors import CheckpointError
from voxmlx.quantization import hlwq
from voxmlx.quantization.recipes import RECIPES, hlwq_recipe
from voxmlx_convert.cli import build_recipe
from voxmlx_convert.convert import Options, convert


@pytest.fixture
def weights():
    return tiny.internal_weights(5)


@pytest.fixture
def coded(tmp_path, weights):
    source = tiny.write_folder(tmp_path / "source", "native", weights)
    convert(str(source), tmp_path / "coded", Options(recipe=hlwq_recipe(5)))
    return tmp_path / "coded"


def is_coded(name, w):
    return w.ndim == 2 and "norm" not in name and "embed" not in name and w.shape[1] % 128 == 0


def test_codes_come_back_exactly(coded, weights):
    loaded = parameters(load_model(coded, mx.float32).model)

    n_coded = 0
    for name, w in weights.items():
        if not is_coded(name, w):
            assert np.array_equal(np.array(loaded[name]), w), name
            continue
        n_coded += 1
        codes, norms = hlwq.encode(mx.array(w), 5)
        table = mx.array(hlwq.centroids(5))
        meant = hlwq.decode(codes, norms, w.shape[1], table)
        assert mx.array_equal(loaded[name], meant.astype(mx.float32)), name
    # Adapter; all but down_proj of the decoder; o_proj and down_proj of the encoder.
    assert n_coded == 2 + 2 * 6 + 2 * 2


def test_the_folder_says_how_to_read_it(coded):
    section = json.loads((coded / "config.json").read_text())["hlwq"]
    polar = json.loads((coded / "polar_config.json").read_text())

    assert section["format"] == polar["format"] == "hlwq-q5"
    assert np.allclose(section["centroids"], hlwq.centroids(5))
    arrays = mx.load(str(coded / "model.safetensors"))
    name = "decoder.layers.0.attention.wq"
    assert arrays[f"{name}.weight__meta"].tolist() == [256, 1, 128, 256 * 128, 128]
    assert polar["layers"][name]["in_features"] == 128
    assert set(polar["layers"]) == {k.split(".weight__")[0] for k in arrays if "__packed" in k}


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
def test_other_numbers_of_bits(tmp_path, weights, bits):
    source = tiny.write_folder(tmp_path / "source", "hf", weights)
    convert(str(source), tmp_path / "coded", Options(recipe=hlwq_recipe(bits)))
    loaded = parameters(load_model(tmp_path / "coded", mx.float32).model)

    name = "decoder.layers.1.attention.q_proj.weight"
    error = np.array(loaded[name]) - weights[name]
    expected = {2: 0.35, 3: 0.19, 4: 0.1, 6: 0.06}[bits]
    assert np.linalg.norm(error) < expected * np.linalg.norm(weights[name])


@pytest.mark.parametrize("recipe", [None, "int8", "int6"])
def test_it_converts_on(coded, tmp_path, weights, recipe):
    options = Options(recipe=None if recipe is None else RECIPES[recipe], dequantize=recipe is None)
    conversion = convert(str(coded), tmp_path / "next", options)

    loaded = load_model(tmp_path / "next")
    name = "adapter.linear_2.weight"
    assert (f"{name[:-7]}.scales" in parameters(loaded.model)) == (recipe is not None)
    assert not (conversion.folder / "polar_config.json").exists()


def test_a_code_file_without_norms_is_refused(coded):
    path = str(coded / "model.safetensors")
    arrays = mx.load(path)
    mx.eval(arrays)
    mx.save_safetensors(
        path, {k: v for k, v in arrays.items() if not k.endswith("wq.weight__norms")}
    )
    (coded / "model.safetensors.index.json").unlink()

    with pytest.raises(CheckpointError, match="wq.weight__packed' has no norms"):
        load_model(coded)


def test_flags():
    assert build_recipe(hlwq=5) == hlwq_recipe(5)
    with pytest.raises(ValueError, match="drop the -q flags"):
        build_recipe(quantize=True, hlwq=5)
    with pytest.raises(ValueError, match="bits of HLWQ must be one of"):
        build_recipe(hlwq=8)
