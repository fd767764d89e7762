from __future__ import annotations

import io
import re

import numpy as np
import pytest

from tests.audio.encode import CODECS, silent_video, with_ffmpeg, with_soundfile
from tests.synthetic import speech_like
from voxmlx.audio.ffmpeg import FFmpegDecoder
from voxmlx.errors import AudioError


def decode(content: bytes) -> tuple[int, np.ndarray, float | None]:
    decoder = FFmpegDecoder(io.BytesIO(content), "talk")
    blocks = list(decoder.blocks())
    decoder.close()
    (rate,) = {rate for rate, _ in blocks}
    return rate, np.concatenate([x for _, x in blocks]), decoder.duration_s


def shift(result: np.ndarray, original: np.ndarray) -> int:
    """By how many samples ``result`` is late."""
    n = 1 << (len(result) + len(original)).bit_length()
    spectrum = np.fft.rfft(result, n) * np.conj(np.fft.rfft(original, n))
    lag = int(np.fft.irfft(spectrum, n).argmax())
    return lag if lag < n // 2 else lag - n


@pytest.mark.parametrize("name", CODECS)
def test_codecs_keep_time_and_level(name):
    rate = CODECS[name][2]
    speech = speech_like(2.5, rate)

    rate_out, result, duration_s = decode(with_ffmpeg(speech, name))

    assert rate_out == rate
    assert result.dtype == np.float32
    assert len(result) == pytest.approx(len(speech), abs=0.07 * rate)
    assert duration_s == pytest.approx(2.5, abs=0.2)
    if name in ("aac", "ts", "mp2", "ac3"):  # do not say how much their encoder put in front
        assert 0 < shift(result, speech) <= 1024
    elif name != "wma":  # FFmpeg's decoder drops the first 2048 samples
        assert shift(result, speech) == 0
    assert np.std(result) == pytest.approx(np.std(speech), rel=0.1)


def test_sound_of_a_video():
    speech = speech_like(1, 44100)

    rate, result, _ = decode(with_ffmpeg(speech, "m4a", video=True))

    assert rate == 44100
    assert len(result) == pytest.approx(44100, abs=2048)


@pytest.mark.parametrize(
    "format, subtype, step",
    [
        ("FLAC", "PCM_S8", 2**-7),
        ("FLAC", "PCM_16", 2**-15),
        ("FLAC", "PCM_24", 2**-23),
        ("WAV", "PCM_U8", 2**-7),
        ("WAV", "PCM_24", 2**-23),
        ("WAV", "DOUBLE", 2**-23),
    ],
)
def test_samples_of_every_width_are_scaled(format, subtype, step):
    speech = speech_like(1, 16000)

    _, result, duration_s = decode(with_soundfile(speech, 16000, format, subtype))

    assert np.abs(result - speech).max() <= step
    assert duration_s == 1.0


def test_channels_are_averaged():
    left, right = speech_like(1, 16000), speech_like(1, 16000, seed=1)

    _, result, _ = decode(with_soundfile(np.stack([left, right], axis=1), 16000, "FLAC"))

    assert np.abs(result - (left + right) / 2).max() <= 2**-15


def test_blocks_hold_about_two_seconds():
    content = with_soundfile(speech_like(7, 16000), 16000, "FLAC")
    decoder = FFmpegDecoder(io.BytesIO(content), "talk")

    lengths = [len(x) for _, x in decoder.blocks()]
    decoder.close()

    assert sum(lengths) == 7 * 16000
    assert all(32000 <= n < 40000 for n in lengths[:-1])


def test_rate_may_change_on_the_way():
    content = b"".join(with_ffmpeg(speech_like(1, rate), "aac", rate) for rate in (48000, 32000))
    decoder = FFmpegDecoder(io.BytesIO(content), "talk")
    lengths: dict[int, int] = {}
    for rate, samples in decoder.blocks():
        lengths[rate] = lengths.get(rate, 0) + len(samples)
    decoder.close()

    assert lengths == {48000: pytest.approx(48000, abs=3072), 32000: pytest.approx(32000, abs=3072)}


def test_joined_ogg_files_are_read_to_the_end():
    pieces = [with_soundfile(speech_like(1, seed=i), 16000, "OGG", "OPUS") for i in range(2)]

    rate, result, _ = decode(b"".join(pieces))

    assert len(result) == 2 * rate


def test_tags_in_another_encoding_do_not_matter():
    content = with_ffmpeg(speech_like(0.5, 44100), "mp3", tags={"title": "Ete"})
    assert b"Ete" in content

    _, result, _ = decode(content.replace(b"Ete", b"\xe9t\xe9"))

    assert len(result) > 20000


def test_cut_files_are_decoded_and_reported(caplog):
    content = with_soundfile(speech_like(4, 16000), 16000, "FLAC")

    _, result, _ = decode(content[: len(content) // 2])

    assert 16000 < len(result) < 48000
    assert caplog.messages == [
        "talk: 1 damaged packets are left out",
        f"talk: cut short; holds {len(result) / 16000:.1f} s where 4.0 s are announced",
    ]


def test_damaged_packets_are_left_out(caplog):
    content = bytearray(with_ffmpeg(speech_like(4, 44100), "m4a"))
    content[20000:20200] = bytes(200)

    _, result, _ = decode(bytes(content))

    assert 3.5 * 44100 < len(result) < 4 * 44100
    assert re.fullmatch("talk: [0-9]+ damaged packets are left out", *caplog.messages)


class BrokenDisk(io.BytesIO):
    """Fails after the first ``good`` bytes."""

    good = 0

    def read(self, size=-1):
        if self.tell() >= self.good:
            raise OSError(5, "Input/output error")
        return super().read(min(size, self.good - self.tell()))


def test_a_failing_disk_is_named(caplog, capfd):
    content = with_ffmpeg(speech_like(4, 44100), "mp3")
    file = BrokenDisk(content)
    with pytest.raises(AudioError, match="^talk: cannot be read: Input/output error$"):
        FFmpegDecoder(file, "talk")

    file.good = len(content) * 3 // 4
    file.seek(0)
    decoder = FFmpegDecoder(file, "talk")
    n = sum(len(x) for _, x in decoder.blocks())
    decoder.close()

    assert 2 * 44100 < n < 4 * 44100
    assert caplog.messages[0] == "talk: cannot be read to its end (Input/output error)"
    assert capfd.readouterr() == ("", "")


def test_video_without_sound():
    with pytest.raises(AudioError, match="^talk: holds no sound; give a WAV.* with a sound track$"):
        FFmpegDecoder(io.BytesIO(silent_video()), "talk")


def test_unknown_codec():
    content = with_ffmpeg(speech_like(0.5, 48000), "mov").replace(b"sowt", b"wxyz")
    with pytest.raises(AudioError, match="^talk: its audio codec is unknown; give a WAV"):
        FFmpegDecoder(io.BytesIO(content), "talk")


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile 'talk.wav'\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\ntalk.wav\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    ],
)
def test_a_playlist_cannot_open_other_files(text, tmp_path, monkeypatch):
    (tmp_path / "talk.wav").write_bytes(with_soundfile(speech_like(1), 16000))
    monkeypatch.chdir(tmp_path)

    with pytest.raises(AudioError, match="^talk: not a recording in a known format"):
        FFmpegDecoder(io.BytesIO(text.encode()), "talk")
