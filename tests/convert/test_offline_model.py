"""Conversions of the offline model: the encoder stays in floats unless it is asked for."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors import safe_open

from tests.oracle import offline_native as native
from voxmlx.pipeline import load
from voxmlx.quantization.recipes import parse_setting, uniform
from voxmlx_convert.convert import Options, convert


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return native.write(tmp_path_factory.mktemp("source"), native.draw(2), n_positions=20)


def packed(folder) -> set[str]:
    with safe_open(folder / "model.safetensors", "np") as file:
        return {name.removesuffix(".scales") for name in file.keys() if name.endswith(".scales")}


@pytest.mark.parametrize("encoder", [None, "8"])
def test_encoder_is_packed_only_if_asked_for(source, tmp_path, encoder):
    recipe = uniform(parse_setting("4"))
    if encoder is not None:
        recipe = recipe.replaced(encoder=parse_setting(encoder))

    convert(str(source), tmp_path / "out", Options(recipe=recipe))

    names = packed(tmp_path / "out")
    assert any(name.startswith("audio_tower.") for name in names) == (encoder is not None)
    assert "language_model.lm_head" in names and "multi_modal_projector.linear_1" in names
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "voxtral"


def test_plain_conversion_keeps_every_token_and_verifies(source, tmp_path):
    samples = native.recording(1.0, 0)

    done = convert(str(source), tmp_path / "out", Options(verify_audio=samples))

    expected = load(source).generate(samples, sample_rate=16000).tokens
    assert load(tmp_path / "out").generate(samples, sample_rate=16000).tokens == expected
    assert done.verification is not None
    assert done.verification.agreement == 1.0 and done.verification.max_error < 1e-3
    assert np.isfinite(done.verification.mean_kl)
