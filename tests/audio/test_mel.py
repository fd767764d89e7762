from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.synthetic import speech_like
from voxmlx.audio.mel import LogMelSpectrogram, frames_of, mel_filter_bank
from voxmlx.config import AudioConfig

CONFIG = AudioConfig()
OWN_MAXIMUM = AudioConfig(global_log_mel_max=None)


def stream(mel: LogMelSpectrogram, pieces: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([*(mel.feed(piece) for piece in pieces), mel.finish()])


def reference(samples: np.ndarray, maximum: float | None, pad_mode: str) -> np.ndarray:
    """The rules in float64, written as matrix products, with the exact Hann window."""
    padded = np.pad(samples.astype(np.float64), 200, mode=pad_mode)
    frames = np.stack([padded[160 * i : 160 * i + 400] for i in range(len(samples) // 160)])
    window = np.sin(np.pi * np.arange(400) / 400) ** 2
    turns = np.outer(np.arange(400), np.arange(201)) / 400
    spectrum = (frames * window) @ np.exp(-2j * np.pi * turns)
    power = np.abs(spectrum) ** 2 @ mel_filter_bank().astype(np.float64)
    log_power = np.log10(np.maximum(power, 1e-10))
    top = log_power.max() if maximum is None else maximum
    return (np.maximum(log_power, top - 8) + 4) / 4


def test_filter_bank_has_the_bits_of_the_reference():
    bank = mel_filter_bank()

    assert bank.shape == (201, 128)
    assert bank.dtype == np.float32
    # SHA-256 of the bank that mistral-common and Transformers build.
    assert (
        hashlib.sha256(bank.tobytes()).hexdigest()
        == "7b5d7251fbad8a593a6564d92c6069e282812404adfcf8505161108c4aa159d8"
    )


def test_filter_bank_of_a_low_rate_stays_linear():
    bank = mel_filter_bank(n_bins=51, n_mels=20, sample_rate=1000)

    peaks_hz = bank.argmax(axis=0) * 10
    assert bank.shape == (51, 20)
    assert np.abs(np.diff(peaks_hz) - 500 / 21).max() <= 10


@pytest.mark.parametrize("n", [0, 1, 159, 160, 161, 199, 200, 201, 319, 320, 359, 360, 16000])
def test_frame_count(n):
    samples = speech_like(1)[:n]
    mel = LogMelSpectrogram(CONFIG)

    assert mel(samples).shape == (n // 160, 128)
    assert stream(mel, [samples]).shape == (n // 160, 128)
    assert mel(samples).dtype == np.float32


def test_silence_is_exactly_the_floor():
    frames = LogMelSpectrogram(CONFIG)(np.zeros(16000, np.float32))

    assert (frames == np.float32(-0.625)).all()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_error_against_float64(seed):
    samples = speech_like(5, seed=seed)

    error = np.abs(LogMelSpectrogram(CONFIG)(samples) - reference(samples, 1.5, "constant"))

    assert error.max() <= 1e-5


def test_error_against_float64_for_noise_and_a_tone():
    noise = np.random.default_rng(0).standard_normal(48000).astype(np.float32) * 0.2
    tone = 0.5 * np.sin(2 * np.pi * 440 / 16000 * np.arange(48000)).astype(np.float32)
    for samples in (noise, tone):
        error = np.abs(LogMelSpectrogram(CONFIG)(samples) - reference(samples, 1.5, "constant"))
        assert error.max() <= 1e-5


def test_own_maximum_mirrors_the_ends():
    samples = speech_like(3)[1500:-1700]  # loud at both ends
    rule = reference(samples, None, "reflect")

    frames = LogMelSpectrogram(OWN_MAXIMUM)(samples)

    assert np.abs(frames - rule).max() <= 1e-5
    assert np.abs(frames[0] - LogMelSpectrogram(CONFIG)(samples)[0]).max() > 0.01


def test_own_maximum_sets_the_floor():
    samples = np.pad(speech_like(1)[2000:6000], 8000)

    frames = LogMelSpectrogram(OWN_MAXIMUM)(samples)

    assert frames.max() - frames.min() == 2.0


@pytest.mark.parametrize("seed", range(20))
def test_any_split_has_the_bits_of_the_whole(seed):
    rng = np.random.default_rng(seed)
    samples = speech_like(2.5, seed=seed)[: rng.integers(1000, 40000)]
    longest = int(rng.choice([3, 50, 161, 400, 1281, 9000]))
    cuts = np.cumsum(rng.integers(0, longest, size=2 * len(samples) // longest))
    pieces = np.split(samples, np.minimum(cuts, len(samples)))

    mel = LogMelSpectrogram(CONFIG)

    assert np.array_equal(stream(mel, pieces), mel(samples))


@given(st.lists(st.integers(0, 700), max_size=30))
def test_any_piece_lengths_have_the_bits_of_the_whole(lengths):
    samples = speech_like(1.5, seed=3)[: sum(lengths)]
    pieces = np.split(samples, np.cumsum(lengths[:-1])) if lengths else []

    mel = LogMelSpectrogram(CONFIG)

    assert np.array_equal(stream(mel, pieces), mel(samples))


def test_single_samples_have_the_bits_of_the_whole():
    samples = speech_like(0.2)
    mel = LogMelSpectrogram(CONFIG)

    assert np.array_equal(stream(mel, list(samples[:, None])), mel(samples))


def test_frames_come_as_soon_as_they_are_complete():
    mel = LogMelSpectrogram(CONFIG)
    samples = speech_like(1)
    n_frames = 0
    for n, piece in enumerate(np.split(samples[:2000], 2000), start=1):
        n_frames += len(mel.feed(piece))
        assert n_frames == max(0, (n - 200) // 160 + 1)


def test_strided_samples_are_read_in_order():
    samples = np.repeat(speech_like(1), 2)[::2]
    mel = LogMelSpectrogram(CONFIG)

    assert np.array_equal(stream(mel, [samples]), mel(np.ascontiguousarray(samples)))


def test_finish_starts_over_and_a_call_leaves_the_stream_alone():
    first, second = speech_like(0.5, seed=1), speech_like(0.7, seed=2)
    mel = LogMelSpectrogram(CONFIG)
    stream(mel, [first])

    head = mel.feed(second[:5000])
    mel(first)
    tail = [mel.feed(second[5000:]), mel.finish()]

    assert np.array_equal(np.concatenate([head, *tail]), mel(second))


def test_feed_copies_what_it_keeps():
    samples = speech_like(0.5)
    mel = LogMelSpectrogram(CONFIG)
    buffer = samples[:4000].copy()
    head = mel.feed(buffer)
    buffer[:] = 1.0

    frames = np.concatenate([head, mel.feed(samples[4000:]), mel.finish()])

    assert np.array_equal(frames, mel(samples))


def test_other_settings_are_followed():
    config = AudioConfig(sample_rate=8000, n_mels=40, hop_length=100, window_size=256)
    samples = speech_like(1, sample_rate=8000)
    mel = LogMelSpectrogram(config)

    assert mel(samples).shape == (80, 40)
    assert np.array_equal(stream(mel, np.split(samples, [777, 3001])), mel(samples))


@pytest.mark.parametrize("samples", [np.zeros((4, 2), np.float32), np.zeros(4)])
def test_wrong_samples_are_named(samples):
    mel = LogMelSpectrogram(CONFIG)
    for method in (mel, mel.feed):
        with pytest.raises(ValueError) as caught:
            method(samples)
        expected = f"samples must be (n,) float32, got {samples.shape} {samples.dtype}"
        assert str(caught.value) == expected


def test_own_maximum_needs_a_whole_clip():
    mel = LogMelSpectrogram(OWN_MAXIMUM)

    with pytest.raises(ValueError, match="a stream needs a global_log_mel_max"):
        mel.feed(np.zeros(10, np.float32))
    with pytest.raises(ValueError, match="needs more than 200 samples, got 200"):
        mel(np.zeros(200, np.float32))


def test_pieces_computed_together_have_the_bits_of_the_whole():
    samples = speech_like(2.5)
    whole = LogMelSpectrogram(CONFIG)(samples)
    spans = [(2, 3), (5, 13), (5, 5), (20, 220), (7, 70), (100, 101)]

    found = frames_of(CONFIG, [samples[160 * a - 200 : 160 * b + 40] for a, b in spans])

    assert len(found) == len(spans)
    for (start, end), frames in zip(spans, found, strict=True):
        assert np.array_equal(frames, whole[start:end])
