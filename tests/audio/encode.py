"""Encoded recordings, made in memory."""

from __future__ import annotations

import io
import struct
from typing import Any

import av
import numpy as np
import soundfile

CODECS = {
    # name: codec, container, sample rate
    "m4a": ("aac", "mp4", 44100),
    "aac": ("aac", "adts", 48000),
    "alac": ("alac", "ipod", 44100),
    "mp3": ("libmp3lame", "mp3", 44100),
    "mp2": ("mp2", "mp2", 48000),
    "opus": ("libopus", "ogg", 48000),
    "webm": ("libopus", "webm", 48000),
    "mkv": ("aac", "matroska", 48000),
    "ts": ("aac", "mpegts", 48000),
    "wma": ("wmav2", "asf", 44100),
    "ac3": ("ac3", "ac3", 48000),
    "flac": ("flac", "flac", 44100),
    "mov": ("pcm_s16le", "mov", 48000),
}


def with_soundfile(
    samples: np.ndarray, sample_rate: int, format: str = "WAV", subtype: str = "PCM_16"
) -> bytes:
    """A file of libsndfile's formats; ``samples`` is ``(n,)`` or ``(n, channels)``."""
    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate, format=format, subtype=subtype)
    return file.getvalue()


def with_ffmpeg(
    samples: np.ndarray,
    name: str,
    sample_rate: int | None = None,
    video: bool = False,
    tags: dict[str, str] | None = None,
) -> bytes:
    """A file of :data:`CODECS`; ``samples`` is ``(n,)``, by default at that codec's rate."""
    codec, container, rate = CODECS[name]
    rate = rate if sample_rate is None else sample_rate
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        output.metadata.update(tags or {})
        picture = _add_video(output) if video else None
        stream: Any = output.add_stream(codec, rate=rate, layout="mono")
        stream.bit_rate = 96_000
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        frame.pts = 0
        convert = av.AudioResampler(stream.format.name, "mono", rate)
        if picture is not None:
            _write_video(output, picture)
        for converted in [*convert.resample(frame), *convert.resample(None)]:
            output.mux(stream.encode(converted))
        output.mux(stream.encode(None))
    return file.getvalue()


def silent_video() -> bytes:
    """An MP4 with pictures and no sound track."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        _write_video(output, _add_video(output))
    return file.getvalue()


def _add_video(output: Any) -> Any:
    stream = output.add_stream("mpeg4", rate=10)
    stream.width = stream.height = 64
    stream.pix_fmt = "yuv420p"
    return stream


def _write_video(output: Any, stream: Any) -> None:
    for i in range(10):
        picture = np.full((64, 64, 3), 20 * i, np.uint8)
        output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
    output.mux(stream.encode(None))


def wav_with_sizes(wav: bytes, riff_size: int, data_size: int) -> bytes:
    """The same WAV with other lengths in its header, as programs write them to a pipe."""
    data = wav.index(b"data")
    return (
        wav[:4]
        + struct.pack("<I", riff_size)
        + wav[8 : data + 4]
        + struct.pack("<I", data_size)
        + wav[data + 8 :]
    )


def wav_with_rate(wav: bytes, sample_rate: int) -> bytes:
    """The same WAV with another sample rate in its header."""
    return wav[:24] + struct.pack("<I", sample_rate) + wav[28:]
