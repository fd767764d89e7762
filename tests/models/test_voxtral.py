"""The offline network against Transformers' own classes on the same weights and audio.

The fixtures were made by ``python -m tests.oracle.offline_reference``. Tolerances are float32
rounding of sums in another order, some times the error seen (encoder 4e-6, logits 4e-5).
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from tests.oracle import offline_native as native
from voxmlx.audio.mel import LogMelSpectrogram
from voxmlx.checkpoints.load import load_model
from voxmlx.config import (
    AudioConfig,
    DecoderConfig,
    EncoderConfig,
    ModelConfig,
    WhisperEncoderConfig,
)
from voxmlx.errors import ConfigError
from voxmlx.generation.chat_prompt import Clip, Prompt, transcription_prompt
from voxmlx.models.voxtral import Voxtral
from voxmlx.models.voxtral_realtime import VoxtralRealtime
from voxmlx.models.whisper_encoder import sinusoids
from voxmlx.pipeline import load

FIXTURES = Path(__file__).parents[1] / "fixtures"
CASES = {"a": (8, 30.7), "b": (2, 12.3)}  # as in tests/oracle/offline_reference.py
LAYOUTS = ("native", "hf")


class Case:
    """One fixture beside the same model loaded by the package."""

    def __init__(self, name: str, layout: str, folder: Path):
        self.name = name
        seed, seconds = CASES[name]
        self.expected = np.load(FIXTURES / f"offline_{name}.npz")
        self.audio = native.recording(seconds, seed)
        self.pipeline = load(native.write(folder, native.draw(seed), layout))
        self.model: Voxtral = self.pipeline.model
        self.clip = Clip(self.audio, self.model.chunk_samples, self.model.chunk_tokens)
        mel = LogMelSpectrogram(self.pipeline.config.audio)
        self.mel = mel(self.clip.padded)

    @cached_property
    def encoded(self) -> mx.array:
        return self.model.encoder(mx.array(self.mel).reshape(-1, 3000, 128))

    @cached_property
    def rows(self) -> mx.array:
        return self.model.adapter(self.encoded)

    def prompt(self) -> Prompt:
        return transcription_prompt(self.pipeline.tokenizer, self.clip, "en")

    def embeddings(self) -> mx.array:
        before, _, after = self.prompt().pieces
        return mx.concatenate(
            [
                self.model.embed_tokens(list(before)),
                self.rows.reshape(1, -1, self.rows.shape[-1]),
                self.model.embed_tokens(list(after)),
            ],
            axis=1,
        )


@pytest.fixture(
    scope="module",
    params=[(n, layout) for n in CASES for layout in LAYOUTS],
    ids=lambda p: "-".join(p),
)
def case(request, tmp_path_factory):
    return Case(*request.param, tmp_path_factory.mktemp("voxtral"))


def test_mel_of_the_padded_clip(case):
    assert case.mel.shape == (len(case.clip.padded) // 160, 128)
    assert np.abs(case.mel[::197] - case.expected["mel"]).max() <= 5e-5  # torch's float32 FFT


def test_encoder(case):
    rows = np.array(case.encoded)[:, ::75]

    assert rows.shape == case.expected["encoder"].shape
    assert np.abs(rows - case.expected["encoder"]).max() <= 1e-5


def test_encoder_as_loaded(case, tmp_path):
    """Without the layouts of inference, as where MLX multiplies itself."""
    weights = native.write(tmp_path, native.draw(CASES[case.name][0]), "native")
    encoder = load_model(weights, mx.float32).model.encoder

    rows = np.array(encoder(mx.array(case.mel).reshape(-1, 3000, 128)))[:, ::75]

    assert np.abs(rows - case.expected["encoder"]).max() <= 1e-5


def test_adapter(case):
    rows = np.array(case.rows).reshape(-1, 128)[::31]

    assert rows.shape == case.expected["adapter"].shape
    assert np.abs(rows - case.expected["adapter"]).max() <= 1e-6


def test_logits_of_the_prompt_and_of_cached_steps(case):
    model, ids = case.model, case.expected["ids"]
    x = case.embeddings()
    cache = model.decoder.make_cache(200, window=2048)
    hidden = mx.concatenate([model(x[:, i : i + 200], cache) for i in range(0, x.shape[1], 200)], 1)
    picks = [0, 100, x.shape[1] // 2, x.shape[1] - 2, x.shape[1] - 1]
    prefill = np.array(model.decoder.logits(hidden[:, mx.array(picks)]))[0]
    steps = []
    for token in ids[:-1].tolist():
        step = model(model.embed_tokens([token]), cache)
        steps.append(np.array(model.decoder.logits(step))[0, 0])

    assert np.ptp(case.expected["prefill"]) > 10
    assert np.abs(prefill - case.expected["prefill"]).max() <= 1e-3
    assert np.abs(np.stack(steps)[::6] - case.expected["steps"]).max() <= 1e-3


def test_ids_of_a_transcription(case):
    result = case.pipeline.generate(case.audio, sample_rate=16000, language="en", max_tokens=25)

    assert result.tokens == case.expected["ids"].tolist()
    assert len(set(result.tokens)) > 2


def test_sinusoids_hold_sines_first():
    table = np.array(sinusoids(1500, 64))

    assert table.shape == (1500, 64)
    assert table[0].tolist() == [0.0] * 32 + [1.0] * 32
    np.testing.assert_allclose(table[1, [0, 31]], np.sin([1, 1e-4]), rtol=1e-5)


def test_chunk_of_another_length_is_refused(case):
    with pytest.raises(ValueError, match="a chunk must have 3000 mel frames, got 2999"):
        case.model.encoder(mx.zeros((1, 2999, 128)))


def test_networks_refuse_the_other_encoder():
    decoder = DecoderConfig(16, 1, 2, 1, 8, 16, 32, sliding_window=None)
    causal = EncoderConfig(16, 1, 2, 8, 16, sliding_window=4)
    whisper = WhisperEncoderConfig(16, 1, 2, 8, 16)

    with pytest.raises(ConfigError, match="voxtral needs a Whisper encoder, got EncoderConfig"):
        Voxtral(ModelConfig("voxtral", AudioConfig(), causal, decoder))
    with pytest.raises(ConfigError, match="voxtral_realtime needs a causal encoder, got Whisper"):
        VoxtralRealtime(ModelConfig("voxtral_realtime", AudioConfig(), whisper, decoder))


@pytest.mark.oracle
@pytest.mark.parametrize("name", CASES)
def test_fixture_is_what_the_reference_gives_now(name):
    from tests.oracle.offline_reference import make

    stored = np.load(FIXTURES / f"offline_{name}.npz")
    for key, value in make(name).items():
        np.testing.assert_allclose(value, stored[key], atol=5e-4, err_msg=key)
