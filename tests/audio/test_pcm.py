from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from tests.synthetic import speech_like
from voxmlx.audio.pcm import ArrayDecoder, block_frames, check_channels, is_array, mix_to_mono
from voxmlx.errors import AudioError


def decode(array: object, sample_rate: float = 16000) -> np.ndarray:
    return np.concatenate([x for _, x in ArrayDecoder(array, sample_rate).blocks()])


@pytest.mark.parametrize(
    "dtype, low, high",
    [
        ("int8", -128, 127),
        ("int16", -32768, 32767),
        (">i2", -32768, 32767),
        ("int32", -(2**31), 2**31 - 1),
    ],
)
def test_integers_are_scaled_to_one(dtype, low, high):
    mono = decode(np.array([low, 0, high], dtype))

    assert mono.dtype == np.float32
    assert mono[0] == -1.0 and mono[1] == 0.0
    assert mono[2] == pytest.approx(1.0, abs=1 / high)


def test_unsigned_bytes_are_centred():
    assert decode(np.array([0, 128, 255], np.uint8)).tolist() == [-1.0, 0.0, 127 / 128]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_floats_keep_their_scale(dtype):
    assert decode(np.array([-1.5, 0.0, 0.25], dtype)).tolist() == [-1.5, 0.0, 0.25]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "uint8"])
@pytest.mark.parametrize("n_channels", [1, 2, 8, 64])
def test_every_channel_is_averaged(dtype, n_channels):
    rng = np.random.default_rng(0)
    samples = rng.integers(0, 200, (1000, n_channels)).astype(dtype)

    mono = mix_to_mono(samples)

    scale, offset = {"int16": (32768, 0), "uint8": (128, 128)}.get(dtype, (1, 0))
    expected = ((samples.astype(np.float64) - offset) / scale).mean(axis=1)
    assert mono.shape == (1000,)
    assert np.allclose(mono, expected, rtol=1e-7, atol=1e-7)


def test_long_arrays_come_in_blocks():
    samples = speech_like(5, 8000)

    blocks = list(ArrayDecoder(samples, 8000).blocks())

    assert [len(x) for _, x in blocks] == [16000, 16000, 8000]
    assert {rate for rate, _ in blocks} == {8000}
    assert np.array_equal(np.concatenate([x for _, x in blocks]), samples)


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_mlx_arrays(dtype):
    array = mx.array([[0.5, 0.25], [-1.0, 0.0]]).astype(dtype)

    assert is_array(array)
    assert decode(array).tolist() == [0.375, -0.5]


def test_duration():
    assert ArrayDecoder(np.zeros((24000, 2), np.int16), 48000.0).duration_s == 0.5


@pytest.mark.parametrize("dtype", ["int64", "uint16", "bool", "complex64", "U1", "O"])
def test_numbers_without_a_full_scale_are_refused(dtype):
    with pytest.raises(TypeError, match="^audio arrays must be floating point.*convert to float32"):
        ArrayDecoder(np.zeros(4).astype(dtype), 16000)


@pytest.mark.parametrize("shape", [(), (2, 16000), (4, 0), (1, 4, 2)])
def test_shapes_that_are_not_sound_are_named(shape):
    with pytest.raises(ValueError) as caught:
        ArrayDecoder(np.zeros(shape, np.float32), 16000)
    assert str(caught.value) == (
        f"audio arrays must be (n,) or (n, channels) with 1 to 64 channels, got {shape}; "
        "transpose (channels, n)"
    )


@pytest.mark.parametrize("rate", [0, 999, 44100.5, 1_000_000, float("nan"), float("inf")])
def test_impossible_rates_are_named(rate):
    with pytest.raises(ValueError, match="must be a whole number from 1000 to 768000 Hz, got"):
        ArrayDecoder(np.zeros(4), rate)


def test_a_missing_rate_is_named():
    with pytest.raises(ValueError, match="^an audio array needs sample_rate=, its rate in Hz$"):
        ArrayDecoder(np.zeros(4), None)


def test_blocks_are_bounded_whatever_a_header_says():
    assert block_frames(44100) == 88200
    assert block_frames(0) == 2000
    assert block_frames(4_000_000_000) == 2 * 768_000


def test_too_many_channels_are_named():
    check_channels(64, "talk.wav")
    with pytest.raises(AudioError) as caught:
        check_channels(65, "talk.wav")
    assert str(caught.value) == "talk.wav: has 65 channels, expected at most 64; mix them down"
