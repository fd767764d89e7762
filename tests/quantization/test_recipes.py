from __future__ import annotations

import pytest

from voxmlx.config import QuantizationConfig
from voxmlx.quantization.modes import make_quantization
from voxmlx.quantization.recipes import (
    RECIPES,
    Recipe,
    find_recipe,
    is_quantizable,
    parse_setting,
    part_of,
    uniform,
)

Q4 = make_quantization(bits=4)


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("encoder.layers.0.mlp.up_proj", "encoder"),
        ("adapter.linear_1", "adapter"),
        ("decoder.embed_tokens", "embedding"),
        ("decoder.layers.3.attention.q_proj", "decoder"),
        ("decoder.lm_head", "head"),
    ],
)
def test_part_of(path, part):
    assert part_of(path) == part
    assert is_quantizable(path)
    assert uniform(Q4)(path, (8, 64)) == Q4


@pytest.mark.parametrize(
    "path",
    [
        "encoder.conv1",
        "encoder.norm",
        "encoder.layers.0.attention_norm",
        "decoder.layers.0.ada_norm.linear_1",
    ],
)
def test_never_quantised(path):
    assert not is_quantizable(path)
    assert uniform(Q4)(path, (8, 64)) is None


def test_matrix_that_does_not_divide_stays():
    assert uniform(Q4)("adapter.linear_1", (8, 96)) is None


def test_mixed_recipe():
    recipe = find_recipe("mixed-4-8")

    assert recipe("decoder.layers.0.mlp.up_proj", (8, 128)).bits == 4
    assert recipe("encoder.layers.0.mlp.up_proj", (8, 128)).bits == 8
    assert recipe("adapter.linear_2", (8, 128)).bits == 8
    assert recipe("decoder.embed_tokens", (8, 128)).bits == 6


def test_parts_can_be_replaced():
    recipe = uniform(Q4).replaced(embedding=None)

    assert recipe("decoder.embed_tokens", (8, 64)) is None
    assert recipe("decoder.lm_head", (8, 64)) == Q4


def test_empty_recipe_leaves_everything():
    assert Recipe({})("decoder.embed_tokens", (8, 64)) is None


def test_every_recipe_packs_real_widths():
    for name, recipe in RECIPES.items():
        for width in (1280, 2048, 3072, 4096, 5120, 9216):
            assert recipe("decoder.layers.0.mlp.up_proj", (8, width)) is not None, name


def test_unknown_recipe():
    with pytest.raises(ValueError, match="recipe must be one of int8, .*, got 'q4_k_m'"):
        find_recipe("q4_k_m")


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("none", None),
        ("8", QuantizationConfig(8, 64)),
        ("8/32", QuantizationConfig(8, 32)),
        ("mxfp8", QuantizationConfig(8, 32, "mxfp8")),
    ],
)
def test_settings_from_flags(text, setting):
    assert parse_setting(text) == setting


@pytest.mark.parametrize("text", ["eight", "8/x", "", "8/32/64"])
def test_settings_that_are_none(text):
    with pytest.raises(ValueError, match="expected none, a number of bits such as 8"):
        parse_setting(text)
