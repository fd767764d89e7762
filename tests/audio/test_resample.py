from __future__ import annotations

import numpy as np
import pytest

from tests.synthetic import speech_like
from voxmlx.audio.resample import Resampler

RATES = [1000, 8000, 11025, 16001, 22050, 24000, 32000, 44100, 48000, 96000, 192000, 768000]


def resample(pieces: list[np.ndarray], rate: int) -> np.ndarray:
    resampler = Resampler(rate)
    return np.concatenate([*(resampler.process(piece) for piece in pieces), resampler.flush()])


@pytest.mark.parametrize("rate", RATES)
def test_any_split_has_the_bits_of_the_whole(rate):
    rng = np.random.default_rng(rate)
    samples = speech_like(0.63, rate)
    whole = resample([samples], rate)
    for longest in (3, 400, rate):
        cuts = np.sort(rng.integers(0, len(samples), size=min(3000, len(samples) // longest + 2)))
        assert np.array_equal(resample(np.split(samples, cuts), rate), whole)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("n", [1, 100, 12345])
def test_length(rate, n):
    result = resample([np.zeros(n, np.float32)], rate)

    assert result.dtype == np.float32
    assert abs(len(result) - n * 16000 / rate) <= 1


@pytest.mark.parametrize("rate", RATES[1:])
def test_a_tone_keeps_its_time_and_level(rate):
    tone = np.sin(2 * np.pi * 1000 / rate * np.arange(rate)).astype(np.float32)

    result = resample([tone], rate)

    expected = np.sin(2 * np.pi * 1000 / 16000 * np.arange(len(result)))
    inner = slice(2000, -2000)  # the ends ring: the tone starts and stops at once
    # A shift of a hundredth of a sample would be 4e-3 off. HQ keeps 20 bits; 8-bit input none.
    assert np.abs(result - expected)[inner].max() < 1e-4


@pytest.mark.parametrize("rate", [22050, 44100, 48000, 96000])
@pytest.mark.parametrize("hz", [8800, 9500, 10900])
def test_tones_above_half_the_rate_vanish(rate, hz):
    tone = np.sin(2 * np.pi * hz / rate * np.arange(rate)).astype(np.float32)

    result = resample([tone], rate)

    assert np.abs(result[1000:-1000]).max() < 1e-5  # 100 dB


def test_equal_rates_return_the_samples():
    samples = speech_like(0.1)

    assert resample([samples[:7], samples[7:]], 16000) is not samples
    assert np.array_equal(resample([samples[:7], samples[7:]], 16000), samples)


def test_flush_starts_over():
    samples = speech_like(0.3, 44100)
    resampler = Resampler(44100)

    first = np.concatenate([resampler.process(samples), resampler.flush()])
    second = np.concatenate([resampler.process(samples), resampler.flush()])

    assert np.array_equal(first, second)


def test_an_empty_stream_gives_nothing():
    assert len(resample([], 44100)) == 0
    assert len(resample([np.zeros(0, np.float32)], 44100)) == 0


@pytest.mark.parametrize("rate", [0, -1, 999, 768001])
def test_impossible_rates_are_named(rate):
    with pytest.raises(ValueError) as caught:
        Resampler(rate)
    assert str(caught.value) == f"rate_in must be 1000 to 768000 Hz, got {rate}"
