from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from tests import tiny_checkpoints as tiny
from voxmlx.checkpoints.checkpoint import open_checkpoint
from voxmlx.checkpoints.load import load_model, parameters
from voxmlx.checkpoints.save import write_checkpoint
from voxmlx.errors import CheckpointError
from voxmlx.quantization.modes import dequantize, make_quantization, quantize
from voxmlx.quantization.recipes import is_quantizable, uniform
from voxmlx_convert.plan import make_plan

WEIGHTS = tiny.internal_weights()
Q4 = make_quantization(bits=4, group_size=32)
Q8 = make_quantization(bits=8, group_size=32)


@pytest.fixture
def source(tmp_path):
    return tiny.write_folder(tmp_path / "source", "hf", WEIGHTS)


def run(source, target, **options):
    """Convert and load the result's parameters."""
    plan = make_plan(open_checkpoint(source), **options)
    target.mkdir()
    write_checkpoint(target, [module.group for module in plan.modules], plan.config_values)
    tiny.write_tekken(target)
    return plan, parameters(load_model(target).model)


def expected(recipe, dtype=mx.float32):
    result = {}
    for name, array in WEIGHTS.items():
        path = name.rpartition(".")[0]
        setting = recipe(path, array.shape) if name.endswith(".weight") else None
        if setting is None:
            result[name] = mx.array(array).astype(dtype)
        else:
            packed = quantize(mx.array(array), setting, dtype)
            result |= {f"{path}.{leaf}": value for leaf, value in packed.items()}
    return result


def assert_equal(got, wanted):
    assert set(got) == set(wanted)
    for name, array in wanted.items():
        assert got[name].dtype == array.dtype, name
        assert mx.array_equal(got[name], array), name


@pytest.mark.parametrize("dtype", [None, mx.float16, mx.bfloat16])
def test_float_conversion(source, tmp_path, dtype):
    _, got = run(source, tmp_path / "out", dtype=dtype)

    wanted = mx.float32 if dtype is None else dtype
    assert_equal(got, {n: mx.array(a).astype(wanted) for n, a in WEIGHTS.items()})


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_quantised_conversion(source, tmp_path, dtype):
    _, got = run(source, tmp_path / "out", recipe=uniform(Q4), dtype=dtype)

    assert_equal(got, expected(uniform(Q4), dtype))


def test_each_part_has_its_own_setting(source, tmp_path):
    recipe = uniform(Q4).replaced(encoder=Q8, adapter=make_quantization("mxfp8"), embedding=None)

    plan, got = run(source, tmp_path / "out", recipe=recipe)

    assert_equal(got, expected(recipe))
    section = plan.config_values["quantization"]
    assert plan.config_values["quantization_config"] == section
    assert section["decoder.layers.0.attention.wq"] == {
        "group_size": 32,
        "bits": 4,
        "mode": "affine",
    }
    assert section["encoder.audio_language_projection_0"]["mode"] == "mxfp8"
    assert "decoder.tok_embeddings" not in section
    assert (section["bits"], section["group_size"], section["mode"]) == (8, 32, "affine")


@pytest.fixture
def packed_source(tmp_path):
    """An mlx-audio folder of 8 bits, the embedding in floating point."""
    recipe = uniform(Q8).replaced(embedding=None)
    run(tiny.write_folder(tmp_path / "first", "native", WEIGHTS), tmp_path / "p", recipe=recipe)
    return tmp_path / "p", recipe


def test_quantised_source_is_kept(packed_source, tmp_path):
    folder, recipe = packed_source

    _, got = run(folder, tmp_path / "out")

    assert_equal(got, expected(recipe))


def test_quantised_source_is_brought_back(packed_source, tmp_path):
    folder, recipe = packed_source

    plan, got = run(folder, tmp_path / "out", dequantized=True)

    assert "quantization" not in plan.config_values
    name = "decoder.layers.0.mlp.up_proj.weight"
    packed = quantize(mx.array(WEIGHTS[name]), Q8)
    assert mx.array_equal(got[name], dequantize(packed, Q8, mx.float32))
    assert set(got) == set(WEIGHTS)


def test_quantised_source_is_packed_anew(packed_source, tmp_path):
    folder, _ = packed_source

    _, got = run(folder, tmp_path / "out", recipe=uniform(Q4))

    name = "decoder.layers.0.mlp.up_proj"
    back = dequantize(quantize(mx.array(WEIGHTS[f"{name}.weight"]), Q8), Q8, mx.float32)
    assert mx.array_equal(got[f"{name}.weight"], quantize(back, Q4)["weight"])
    embedding = quantize(mx.array(WEIGHTS["decoder.embed_tokens.weight"]), Q4)
    assert mx.array_equal(got["decoder.embed_tokens.weight"], embedding["weight"])


def test_conditioning_that_a_source_packed_is_brought_back(tmp_path):
    """voxmlx 0.0.2 packs it; mlx-audio cannot read it so."""
    paths = {n.rpartition(".")[0] for n, a in WEIGHTS.items() if a.ndim == 2}
    paths = {p for p in paths if is_quantizable(p) or p.endswith("ada_norm.linear_1")}
    packed = tiny.quantized(WEIGHTS, paths, bits=4, group_size=64)
    folder = tiny.write_folder(tmp_path / "old", "old_voxmlx")
    arrays = {tiny.old_voxmlx_name(name): array for name, array in packed.items()}
    tiny.write_safetensors(folder / "model.safetensors", arrays)
    config = {**tiny.params(), "quantization": {"group_size": 64, "bits": 4}}
    tiny.write_json(folder / "config.json", config)

    _, got = run(folder, tmp_path / "out")

    name = "decoder.layers.0.ada_norm.linear_1"
    q4 = make_quantization(bits=4, group_size=64)
    back = dequantize(quantize(mx.array(WEIGHTS[f"{name}.weight"]), q4), q4, mx.float32)
    assert f"{name}.scales" not in got
    assert mx.array_equal(got[f"{name}.weight"], back)
    up_proj = "decoder.layers.0.mlp.up_proj"
    assert np.array_equal(np.asarray(got[f"{up_proj}.weight"]), packed[f"{up_proj}.weight"])


def test_matrix_that_a_mode_loses(tmp_path):
    """The scales of nvfp4 end at 2**-9."""
    weights = dict(WEIGHTS)
    name = "decoder.layers.1.mlp.up_proj"
    weights[f"{name}.weight"] = weights[f"{name}.weight"] * 0.005
    source = tiny.write_folder(tmp_path / "source", "native", weights)
    recipe = uniform(make_quantization("nvfp4"))

    with pytest.raises(CheckpointError) as info:
        run(source, tmp_path / "out", recipe=recipe)
    assert str(info.value) == (
        f"{source}: {name} is lost when stored as 4 bits, group 16, nvfp4: its numbers are too "
        "small; choose another mode for it"
    )


@pytest.mark.parametrize("bits", [2, 3])
def test_few_bits_are_allowed(source, tmp_path, bits):
    run(source, tmp_path / "out", recipe=uniform(make_quantization(bits=bits, group_size=32)))


def test_sizes_by_part(source, tmp_path):
    recipe = uniform(Q4).replaced(encoder=Q8)
    plan, got = run(source, tmp_path / "out", recipe=recipe)

    parts = {part.part: part for part in plan.parts}
    assert list(parts) == ["encoder", "adapter", "embedding", "decoder"]
    assert parts["embedding"].n_weights == WEIGHTS["decoder.embed_tokens.weight"].size
    assert parts["embedding"].bits_per_weight == 4 + 2 * 32 / 32
    assert parts["embedding"].settings == "4 bits, group 32, affine"
    assert parts["encoder"].settings == "8 bits, group 32, affine"
    assert plan.total.n_weights == sum(a.size for a in WEIGHTS.values())
    assert plan.total.nbytes == sum(a.nbytes for a in got.values())


def test_planning_reads_no_weights(source, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("read")

    monkeypatch.setattr(mx, "load", fail)

    make_plan(open_checkpoint(source), recipe=uniform(Q4))
