from __future__ import annotations

import io
import os
import struct
import threading

import numpy as np
import pytest
import soundfile

from voxmlx.audio.pipe import PcmFormat, PipeSource
from voxmlx.errors import AudioError


def through_pipe(data: bytes, raw: PcmFormat | None = None, piece: int = 1001):
    """What a source reads from a pipe into which ``data`` trickles."""
    reader, writer = os.pipe()

    def write():
        with os.fdopen(writer, "wb", buffering=0) as pipe:
            for start in range(0, len(data), piece):
                pipe.write(data[start : start + piece])

    thread = threading.Thread(target=write)
    thread.start()
    try:
        source = PipeSource(reader, "standard input", PcmFormat() if raw is None else raw)
        parts = []
        while (part := source.read(5)) is not None:
            parts.append(part)
        return source, np.concatenate([np.zeros(0, np.float32), *parts])
    finally:
        thread.join()
        os.close(reader)


def noise(n: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.9, 0.9, n)


@pytest.mark.parametrize(
    ("sample_type", "encode", "error"),
    [
        ("u8", lambda x: np.round(x * 127 + 128).astype(np.uint8).tobytes(), 0.012),
        ("s16le", lambda x: np.round(x * 32767).astype("<i2").tobytes(), 1e-4),
        (
            "s24le",
            lambda x: (
                np.round(x * 8388607).astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
            ),
            1e-6,
        ),
        ("s32le", lambda x: np.round(x * 2147483647).astype("<i4").tobytes(), 1e-6),
        ("f32le", lambda x: x.astype("<f4").tobytes(), 1e-7),
        ("f64le", lambda x: x.astype("<f8").tobytes(), 1e-7),
    ],
)
def test_raw_samples(sample_type, encode, error):
    x = noise(5000)
    source, samples = through_pipe(encode(x), PcmFormat(8000, 1, sample_type))

    assert source.sample_rate == 8000
    assert samples.dtype == np.float32
    assert samples.shape == x.shape
    assert np.abs(samples - x).max() < error


def test_raw_channels_are_averaged():
    x = noise(4000).reshape(-1, 2)
    _, samples = through_pipe(x.astype("<f4").tobytes(), PcmFormat(16000, 2, "f32le"))

    assert np.abs(samples - x.mean(axis=1)).max() < 1e-6


def test_broken_last_frame_is_dropped():
    _, samples = through_pipe(b"\0\0" * 50 + b"\0")

    assert len(samples) == 50


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("format", ["WAV", "WAVEX"])
def test_wav(subtype, format):
    x = noise(6000).reshape(-1, 2)
    file = io.BytesIO()
    soundfile.write(file, x, 44100, format=format, subtype=subtype)
    source, samples = through_pipe(file.getvalue())

    assert source.sample_rate == 44100
    assert samples.shape == (3000,)
    assert np.abs(samples - x.mean(axis=1)).max() < (0.01 if subtype == "PCM_U8" else 1e-4)


def wav_header(size: int, extra: bytes = b"", tag: int = 1, bits: int = 16) -> bytes:
    fmt = struct.pack("<HHIIHH", tag, 1, 16000, 32000, 2, bits)
    return (
        b"RIFF\xff\xff\xff\xffWAVE"
        + extra
        + b"fmt "
        + struct.pack("<I", 16)
        + fmt
        + b"data"
        + struct.pack("<I", size)
    )


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFF000])
def test_wav_of_unknown_length_goes_on_to_the_end(size):
    _, samples = through_pipe(wav_header(size, b"LIST\x03\0\0\0abc\0") + b"\0\1" * 7000)

    assert len(samples) == 7000


def test_chunks_behind_the_samples_are_not_sound():
    _, samples = through_pipe(wav_header(200) + b"\0\1" * 100 + b"LIST\4\0\0\0abcd")

    assert len(samples) == 100


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "standard input: is empty; pipe sound in"),
        (b"fLaC" + bytes(100), "standard input: holds FLAC, expected PCM or WAV; put ffmpeg"),
        (b"RIFF", "its WAV header is cut short or broken"),
        (b"RIFF\0\0\0\0WAVEdata\4\0\0\0abcd", "has no fmt chunk before the samples"),
        (wav_header(0, tag=17, bits=4), "holds WAV of type 17 with 4 bits, expected PCM"),
        (b"RIFF\0\0\0\0WAVEjunk\xff\xff\xff\xff" + bytes(99), "its WAV header is cut short or"),
    ],
)
def test_what_cannot_be_read(data, message):
    with pytest.raises(AudioError, match=message):
        through_pipe(data)


def test_wrong_format():
    with pytest.raises(ValueError, match="sample_type must be one of u8, s16le"):
        PcmFormat(16000, 1, "mp3")
    with pytest.raises(ValueError, match="channels must be 1 to 64, got 0"):
        PcmFormat(16000, 0)


def test_stop_still_gives_what_is_in_the_pipe():
    reader, writer = os.pipe()
    os.write(writer, b"\1\0" * 20_000)
    source = PipeSource(reader, "standard input", PcmFormat())
    source.stop()
    n = 0
    while (part := source.read(5)) is not None:
        n += len(part)
    os.close(writer)
    os.close(reader)

    assert n == 20_000


def test_stop_ends_an_endless_writer():
    with open("/dev/zero", "rb") as zeros:
        source = PipeSource(zeros.fileno(), "zeros", PcmFormat())
        source.stop()
        n = 0
        while (part := source.read(5)) is not None:
            n += len(part)

    assert n > 0
