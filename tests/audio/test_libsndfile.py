from __future__ import annotations

import io
import logging

import numpy as np
import pytest

from tests.audio.encode import wav_with_sizes, with_ffmpeg, with_soundfile
from tests.synthetic import speech_like
from voxmlx.audio.libsndfile import SoundFileDecoder
from voxmlx.errors import AudioError

SPEECH = speech_like(1.5, 8000)


def decode(content: bytes) -> np.ndarray:
    decoder = SoundFileDecoder(io.BytesIO(content), "talk")
    samples = np.concatenate([x for _, x in decoder.blocks()])
    decoder.close()
    return samples


@pytest.mark.parametrize(
    "format, subtype, step",
    [
        # step: distance of two neighbouring values, where it is the same everywhere
        ("WAV", "PCM_U8", 2**-7),
        ("WAV", "PCM_16", 2**-15),
        ("WAV", "PCM_24", 2**-23),
        ("WAV", "PCM_32", 2**-23),
        ("WAV", "FLOAT", 2**-30),
        ("WAV", "DOUBLE", 2**-30),
        ("WAVEX", "PCM_24", 2**-23),
        ("RF64", "PCM_16", 2**-15),
        ("W64", "PCM_16", 2**-15),
        ("AIFF", "PCM_S8", 2**-7),
        ("AIFF", "PCM_16", 2**-15),
        ("AIFF", "FLOAT", 2**-30),
        ("AU", "PCM_16", 2**-15),
        ("CAF", "PCM_24", 2**-23),
        ("CAF", "ALAC_16", 2**-15),
        ("NIST", "PCM_16", 2**-15),
        ("VOC", "PCM_16", 2**-15),
    ],
)
def test_plain_samples_come_back(format, subtype, step):
    result = decode(with_soundfile(SPEECH, 8000, format, subtype))

    assert result.dtype == np.float32
    assert result.shape == SPEECH.shape
    assert np.abs(result - SPEECH).max() <= step


@pytest.mark.parametrize(
    "format, subtype, error",
    [
        ("WAV", "ULAW", 0.02),
        ("WAV", "ALAW", 0.02),
        ("WAV", "IMA_ADPCM", 0.2),
        ("WAV", "MS_ADPCM", 0.2),
        ("WAV", "GSM610", 0.5),
        ("AU", "G721_32", 0.2),
    ],
)
def test_companded_samples_come_back(format, subtype, error):
    result = decode(with_soundfile(SPEECH, 8000, format, subtype))[: len(SPEECH)]

    assert len(result) >= 0.99 * len(SPEECH)
    assert np.abs(result - SPEECH[: len(result)]).max() <= error


def test_blocks_hold_two_seconds_at_the_rate_of_the_file():
    content = with_soundfile(np.tile(SPEECH, 3), 8000)
    decoder = SoundFileDecoder(io.BytesIO(content), "talk")

    assert [(rate, len(x)) for rate, x in decoder.blocks()] == [
        (8000, 16000),
        (8000, 16000),
        (8000, 4000),
    ]
    assert decoder.duration_s == 4.5
    decoder.close()


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000])
def test_wav_written_to_a_pipe(size, caplog):
    content = wav_with_sizes(with_soundfile(SPEECH, 8000), size, size)

    assert np.abs(decode(content) - SPEECH).max() <= 2**-15
    assert caplog.messages == []


def test_cut_wav_is_reported(caplog):
    content = with_soundfile(SPEECH, 8000)[:10044]

    assert len(decode(content)) == 5000
    assert caplog.messages == [
        "talk: cut short; holds 10000 of the 24000 bytes that its header announces"
    ]
    assert caplog.records[0].levelno == logging.WARNING


def test_compressed_streams_are_left_to_ffmpeg():
    speech = speech_like(0.5, 44100)
    for content in (
        with_soundfile(speech, 44100, "FLAC"),
        with_soundfile(speech, 44100, "OGG", "VORBIS"),
        with_soundfile(speech, 44100, "MP3", "MPEG_LAYER_III"),
        b"ID3\4" + bytes(100),
        with_ffmpeg(speech, "m4a"),
    ):
        file = io.BytesIO(content)
        with pytest.raises(ValueError):
            SoundFileDecoder(file, "talk")
        assert not file.closed


def test_unknown_or_empty_content_is_refused():
    for content in (b"some text", with_soundfile(SPEECH[:0], 8000), b"\xff"):
        with pytest.raises(ValueError):
            SoundFileDecoder(io.BytesIO(content), "talk")


def test_too_many_channels_are_refused():
    content = with_soundfile(np.zeros((10, 65), np.float32), 8000)
    with pytest.raises(AudioError, match="^talk: has 65 channels"):
        SoundFileDecoder(io.BytesIO(content), "talk")
