"""A small random realtime model with speech-like samples that it transcribed itself."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from tests.oracle import native
from voxmlx.checkpoints.load import load_model
from voxmlx.models.voxtral_realtime import VoxtralRealtime
from voxmlx.tokenizer import Tokenizer
from voxmlx_convert.calibration.samples import Sample, make_samples

FIXTURES = Path(__file__).parents[2] / "fixtures"


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    spread = np.load(FIXTURES / "oracle_a.npz")["spread"]
    weights = native.draw(10) | {native.SPREAD: spread}
    return native.write(tmp_path_factory.mktemp("calibration"), weights, 24, 20)


@pytest.fixture
def model(folder) -> VoxtralRealtime:
    return load_model(folder, mx.float32).model


@pytest.fixture(scope="session")
def samples(folder) -> list[Sample]:
    loaded = load_model(folder, mx.float32)
    tokenizer = Tokenizer.from_file(loaded.tokenizer_path)
    return make_samples(
        loaded.model, tokenizer, [native.speech_like(1.0, seed) for seed in (10, 11)]
    )
