from __future__ import annotations

import numpy as np
import pytest

from tests import tiny_checkpoints as tiny
from voxmlx.errors import CheckpointError
from voxmlx.pipeline import load
from voxmlx.quantization.modes import make_quantization
from voxmlx.quantization.recipes import uniform
from voxmlx_convert.convert import Options, convert
from voxmlx_convert.verify import (
    SAMPLE_RATE,
    forced_logits,
    mean_kl,
    synthetic_speech,
    verify_conversion,
)

AUDIO = synthetic_speech(0.5)


@pytest.fixture
def source(tmp_path):
    return tiny.write_folder(tmp_path / "source", "hf")


def test_float_copy_is_exact(source, tmp_path):
    options = Options(verify_audio=AUDIO)

    result = convert(str(source), tmp_path / "out", options).verification

    assert result.n_tokens == -(-len(AUDIO) // 1280) + 11
    assert result.max_error < 1e-4  # the order of sums may differ between runs of one network
    assert result.agreement == result.free_agreement == 1.0
    assert result.source_text == result.result_text


def test_quantised_copies_are_ranked(source, tmp_path):
    errors = []
    for bits in (8, 4):
        recipe = uniform(make_quantization(bits=bits, group_size=32))
        target = tmp_path / f"out{bits}"
        convert(str(source), target, Options(recipe=recipe))
        errors.append(verify_conversion(source, target, AUDIO))

    means = [result.mean_error / result.logit_std for result in errors]
    assert 0 < means[0] < means[1] < 0.5
    assert 0 < errors[0].mean_kl < errors[1].mean_kl
    assert all(result.max_error > result.mean_error for result in errors)


def test_forced_logits_are_those_of_decoding(source):
    """Scored in one pass, the model's own tokens are the likeliest at every position."""
    pipeline = load(source)
    tokens = list(pipeline.generate(AUDIO, sample_rate=SAMPLE_RATE).tokens)

    logits = forced_logits(pipeline, AUDIO, tokens)

    assert logits.shape == (len(tokens), tiny.N_VOCAB)
    assert logits.argmax(-1).tolist() == tokens


def test_result_that_is_not_finite(source, tmp_path):
    weights = tiny.internal_weights()
    weights["decoder.norm.weight"] = np.full_like(weights["decoder.norm.weight"], np.nan)
    broken = tiny.write_folder(tmp_path / "broken", "hf", weights)

    with pytest.raises(CheckpointError) as info:
        verify_conversion(source, broken, AUDIO)
    assert str(info.value) == f"{broken}: the converted model's logits are not finite"


def test_mean_kl():
    a = np.log([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]])
    b = np.log([[0.25, 0.5, 0.25], [0.5, 0.25, 0.25]]) + 3.0  # a constant changes nothing

    expected = (0.5 * np.log(2) + 0.25 * np.log(0.5)) / 2
    assert mean_kl(a, b) == pytest.approx(expected)
    assert mean_kl(a, a) == 0


def test_synthetic_speech():
    a, b = synthetic_speech(2.0, seed=1), synthetic_speech(2.0, seed=1)

    assert a.shape == (2 * SAMPLE_RATE,) and a.dtype == np.float32
    assert np.array_equal(a, b)
    assert 0.05 < np.abs(a).max() < 1
