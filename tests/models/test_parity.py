"""Our numbers against those of Transformers' own classes on the same weights and audio.

The fixtures were made by ``python -m tests.oracle.reference``. Tolerances are float32 rounding of
sums in another order, some times the error seen (encoder 3e-6, adapter 3e-7, logits 1e-4 of 20).
"""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from tests.oracle import native
from voxmlx.audio.mel import LogMelSpectrogram
from voxmlx.generation.prompt import right_padding, streaming_prompt
from voxmlx.generation.step import DecodeState, decode_step
from voxmlx.pipeline import Pipeline, load

FIXTURES = Path(__file__).parents[1] / "fixtures"
# name: seed, encoder window, decoder window, seconds; as in tests/oracle/reference.py
CASES = {"a": (10, 24, 20, 3.137), "b": (3, 50, 64, 2.5), "eos": (24, 24, 20, 3.137)}
DELAYS_MS = (480, 80, 2400)


class Case:
    """One fixture beside the same model loaded by the package."""

    def __init__(self, name: str, folder: Path):
        seed, encoder_window, decoder_window, seconds = CASES[name]
        self.expected = np.load(FIXTURES / f"oracle_{name}.npz")
        self.audio = native.speech_like(seconds, seed)
        weights = native.draw(seed) | {native.SPREAD: self.expected["spread"]}
        native.write(folder, weights, encoder_window, decoder_window)
        self.pipeline: Pipeline = load(folder)

    def mel(self, delay_ms: int) -> np.ndarray:
        n_right = right_padding(len(self.audio), delay_ms // 80, 1280)
        mel = LogMelSpectrogram(self.pipeline.config.audio)
        return mel(np.pad(self.audio, (32 * 1280, n_right)))

    def embeddings(self, delay_ms: int) -> mx.array:
        return self.pipeline.model.embed_audio(mx.array(self.mel(delay_ms))[None])


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    return Case(request.param, tmp_path_factory.mktemp(request.param))


def test_mel(case):
    mel = case.mel(480)[::9]

    assert mel.shape == case.expected["mel"].shape
    assert np.abs(mel - case.expected["mel"]).max() <= 1e-5


def test_encoder(case):
    rows = np.array(case.pipeline.model.encoder(mx.array(case.mel(480))[None]))[0, ::3]

    assert rows.shape == case.expected["encoder"].shape
    assert np.abs(rows - case.expected["encoder"]).max() <= 1e-5


def test_adapter(case):
    rows = np.array(case.embeddings(480))[0, ::3]

    assert rows.shape == case.expected["adapter"].shape
    assert np.abs(rows - case.expected["adapter"]).max() <= 1e-6


@pytest.mark.parametrize("delay_ms", DELAYS_MS)
def test_logits_along_the_reference_path(case, delay_ms):
    model, ids = case.pipeline.model, case.expected[f"ids_{delay_ms}"]
    rows = case.embeddings(delay_ms)
    prompt = streaming_prompt(1, 32, 32, delay_ms // 80)
    state = DecodeState(
        model.decoder.make_cache(max_step=len(prompt)), model.decoder.conditioning(delay_ms // 80)
    )
    placed, at, logits = prompt, 0, []
    for token in ids:
        tokens = mx.array([placed], dtype=mx.int32)
        step = decode_step(model, state, tokens, rows[:, at : at + len(placed)], 1)
        logits.append(np.array(step[0, -1]))
        at, placed = at + len(placed), [int(token)]

    assert at == rows.shape[1]
    got, expected = np.stack(logits)[::7], case.expected[f"logits_{delay_ms}"]
    assert np.ptp(expected) > 10
    assert np.abs(got - expected).max() <= 2e-3


@pytest.mark.parametrize("delay_ms", DELAYS_MS)
def test_ids_of_a_whole_transcription(case, delay_ms):
    result = case.pipeline.generate(case.audio, sample_rate=16000, transcription_delay_ms=delay_ms)

    # Greedy ids up to EOS; the reference's generate() stops one position before the audio ends.
    ids = case.expected[f"ids_{delay_ms}"].tolist()
    ids = ids[: ids.index(2) + 1] if 2 in ids else ids
    assert result.tokens == ids
    generated = case.expected[f"generated_{delay_ms}"].tolist()
    assert result.tokens[: len(generated)] == generated
    assert len(set(ids)) > 5


def test_stops_at_eos_as_the_reference_does(tmp_path):
    case = Case("eos", tmp_path)

    result = case.pipeline.generate(case.audio, sample_rate=16000)

    generated = case.expected["generated_480"].tolist()
    assert generated[-1] == 2 and len(generated) < len(case.expected["ids_480"]) - 1
    assert result.tokens == generated


@pytest.mark.oracle
@pytest.mark.parametrize("name", CASES)
def test_fixture_is_what_the_reference_gives_now(name):
    from tests.oracle.reference import make

    stored = np.load(FIXTURES / f"oracle_{name}.npz")
    for key, value in make(name).items():
        np.testing.assert_allclose(value, stored[key], atol=5e-4, err_msg=key)
