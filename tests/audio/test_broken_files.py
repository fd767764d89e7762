"""Files as they arrive: cut, damaged, empty, mislabelled. Each gives sound or an AudioError."""

from __future__ import annotations

import functools
import struct
import zlib

import numpy as np
import pytest

from tests.audio.encode import (
    silent_video,
    wav_with_rate,
    wav_with_sizes,
    with_ffmpeg,
    with_soundfile,
)
from tests.synthetic import speech_like
from voxmlx.audio.decode import read_audio
from voxmlx.errors import AudioError

SECONDS = 2


@functools.cache
def file(kind: str) -> bytes:
    """Two seconds of speech in a format of either library."""
    if kind in ("WAV", "AIFF", "CAF", "AU", "W64"):
        return with_soundfile(speech_like(SECONDS, 22050), 22050, kind)
    if kind in ("VORBIS", "OPUS"):
        return with_soundfile(speech_like(SECONDS, 24000), 24000, "OGG", kind)
    rate = {"m4a": 44100, "mp3": 44100, "flac": 44100}.get(kind, 48000)
    return with_ffmpeg(speech_like(SECONDS, rate), kind, rate)


WAV = file("WAV")
NO_SOUND = {
    "empty": b"",
    "one byte": b"R",
    "text": b"This is a letter, not a recording.\n" * 100,
    "utf-16 text": ("Это письмо. " * 200).encode("utf-16"),
    "html error page": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    "json": b'{"error": "no such key"}',
    "pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + bytes(500),
    "zip": b"PK\x03\x04" + bytes(500),
    "gzip": b"\x1f\x8b\x08\x00" + zlib.compress(WAV),
    "subtitles": b"1\n00:00:00,000 --> 00:00:02,000\nhello\n\n" * 20,
    "png": b"\x89PNG\r\n\x1a\n" + bytes(500),
    "zeros": bytes(100_000),
    "ones": b"\xff" * 100_000,
    "random": np.random.default_rng(0).bytes(100_000),
    "git lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    "riff only": b"RIFF\0\0\0\0WAVE",
    "wav without data": WAV[:36],
    "wav header cut": WAV[:20],
    "wav without samples": with_soundfile(np.zeros(0, np.float32), 16000),
    "wav with 0 channels": WAV[:22] + b"\0\0" + WAV[24:],
    "wav with 0 Hz": wav_with_rate(WAV, 0),
    "wav at 100 Hz": wav_with_rate(WAV, 100),
    "wav of an unknown codec": WAV[:20] + b"\x77\x77" + WAV[22:],
    "aiff header": file("AIFF")[:30],
    "flac header": file("flac")[:60],
    "flac without samples": with_soundfile(np.zeros(0, np.float32), 16000, "FLAC"),
    "ogg header": file("VORBIS")[:60],
    "mp3 frame header": file("mp3")[:4],
    "id3 only": b"ID3\x04\x00\x00\x00\x00\x00\x64" + bytes(100),
    "m4a without index": file("m4a")[: len(file("m4a")) // 2],
    "m4a header": file("m4a")[:40],
    "mkv header": file("mkv")[:100],
    "video without sound": silent_video(),
    "a NaN": with_soundfile(np.array([0, np.nan, 0]), 16000, subtype="FLOAT"),
    "an infinity": with_soundfile(np.array([0, np.inf, 0]), 16000, subtype="DOUBLE"),
    "65 channels": with_soundfile(np.zeros((100, 65)), 16000),
}


@pytest.mark.parametrize("kind", NO_SOUND)
def test_what_holds_no_sound_gives_one_line(kind, tmp_path, capfd):
    path = tmp_path / "talk.wav"
    path.write_bytes(NO_SOUND[kind])

    for source, name in ((path, str(path)), (NO_SOUND[kind], f"{len(NO_SOUND[kind])} bytes")):
        with pytest.raises(AudioError) as caught:
            read_audio(source)
        message = str(caught.value)
        assert message.startswith(f"{name}: ")
        assert "\n" not in message and len(message) < len(name) + 150
    assert capfd.readouterr() == ("", "")


CUT = ["WAV", "AIFF", "CAF", "AU", "W64", "VORBIS", "OPUS", "flac", "mp3", "aac", "mkv", "webm"]


@pytest.mark.parametrize("kind", [*CUT, "ts", "wma", "ac3", "mp2"])
def test_what_is_left_of_a_cut_file_is_read(kind, caplog, capfd):
    content = file(kind)

    result = read_audio(content[: len(content) * 3 // 4 + 1])

    assert 0.3 * SECONDS < len(result) / 16000 < 0.95 * SECONDS
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "content",
    [
        wav_with_sizes(WAV, 0, 0),
        wav_with_sizes(WAV, 0xFFFFFFFF, 0xFFFFFFFF),
        wav_with_sizes(WAV, 0, 0x7FFFFFFF),
        WAV + b"trailing rubbish",
        b"ID3\x04\x00\x00\x00\x00\x00\x10" + bytes(16) + file("mp3"),
        file("mp3") + b"TAG" + bytes(125),
        bytes(300) + file("mp3"),
    ],
    ids=["no sizes", "ffmpeg pipe", "sox pipe", "rubbish", "id3v2", "id3v1", "zeros before mp3"],
)
def test_odd_but_whole_files_are_read_whole(content, capfd):
    assert len(read_audio(content)) == pytest.approx(SECONDS * 16000, abs=1000)
    assert capfd.readouterr() == ("", "")


KINDS = ["WAV", "AIFF", "CAF", "AU", "W64", "VORBIS", "OPUS", "flac", "mp3", "aac", "m4a"]


@pytest.mark.parametrize("kind", [*KINDS, "mkv", "webm", "ts", "wma", "alac", "mov"])
def test_random_damage_gives_sound_or_one_line(kind, caplog, capfd):
    rng = np.random.default_rng(zlib.crc32(kind.encode()))
    for trial in range(8):
        content = bytearray(file(kind))
        # The first trials hit the header, where a wrong length or count does the most.
        reach = 100 if trial < 4 else len(content)
        for position in rng.integers(0, reach, size=8):
            content[position] = rng.integers(256)
        try:
            result = read_audio(bytes(content))
        except AudioError as error:
            assert "\n" not in str(error)
        else:
            assert result.dtype == np.float32 and len(result) and np.isfinite(result).all()
    assert capfd.readouterr() == ("", "")


def test_a_header_that_promises_terabytes_costs_nothing():
    extensible = with_soundfile(speech_like(0.1), 16000, "RF64")
    sizes = struct.pack("<QQQ", 1 << 42, 1 << 42, 1 << 41)
    start = extensible.index(b"ds64") + 8
    content = extensible[:start] + sizes + extensible[start + 24 :]

    assert len(read_audio(content)) == 1600
