from __future__ import annotations

import io
import subprocess
import sys
import tracemalloc

import mlx.core as mx
import numpy as np
import pytest

from tests.audio.encode import CODECS, wav_with_rate, with_ffmpeg, with_soundfile
from tests.synthetic import speech_like
from voxmlx.audio.decode import SAMPLE_RATE, AudioReader, open_audio, read_audio
from voxmlx.audio.resample import Resampler
from voxmlx.errors import AudioError


def at_16k(samples: np.ndarray, rate: int) -> np.ndarray:
    resampler = Resampler(rate)
    return np.concatenate([resampler.process(samples), resampler.flush()])


def test_a_wav_at_16_khz_is_read_as_it_is():
    speech = speech_like(5)

    result = read_audio(with_soundfile(speech, 16000, subtype="FLOAT"))

    assert result.dtype == np.float32
    assert np.array_equal(result, speech)


@pytest.mark.parametrize("rate", [1000, 8000, 11025, 22050, 44100, 48000, 192000, 768000])
def test_other_rates_are_converted_as_one_stream(rate):
    speech = speech_like(4.3, rate)

    result = read_audio(with_soundfile(speech, rate, subtype="FLOAT"))

    assert np.array_equal(result, at_16k(speech, rate))
    assert abs(len(result) - 4.3 * 16000) <= 1


@pytest.mark.parametrize("name", CODECS)
def test_every_codec_gives_the_speech_at_16_khz(name):
    rate = CODECS[name][2]
    speech = speech_like(3, rate)

    with open_audio(with_ffmpeg(speech, name)) as reader:
        duration_s = reader.duration_s
        result = np.concatenate(list(reader))

    assert duration_s == pytest.approx(3, abs=0.2)
    assert len(result) == pytest.approx(3 * 16000, abs=0.06 * 16000)
    assert np.std(result) == pytest.approx(np.std(at_16k(speech, rate)), rel=0.1)


def test_192_khz_with_8_channels():
    channels = np.stack([speech_like(2.2, 192000, seed=i) for i in range(8)], axis=1)

    result = read_audio(with_soundfile(channels, 192000, subtype="FLOAT"))

    expected = at_16k(channels.astype(np.float64).mean(axis=1).astype(np.float32), 192000)
    assert result.shape == expected.shape
    assert np.abs(result - expected).max() < 1e-6


@pytest.mark.parametrize("extension", ["wav", "raw", "mp3", "txt", "m3u8", "sd2", ""])
def test_the_extension_does_not_matter(tmp_path, extension):
    speech = speech_like(1, 44100)
    expected = at_16k(speech, 44100)
    for content in (
        with_soundfile(speech, 44100),
        with_soundfile(speech, 44100, "FLAC"),
        with_ffmpeg(speech, "m4a"),
    ):
        path = tmp_path / f"söme talk: 1%20.{extension}"
        path.write_bytes(content)
        result = read_audio(path)[: len(expected)]
        assert np.corrcoef(result, expected)[0, 1] > 0.99


def test_every_source_gives_the_same_samples(tmp_path, monkeypatch):
    content = with_soundfile(speech_like(3, 22050), 22050)
    path = tmp_path / "talk.wav"
    path.write_bytes(content)
    expected = read_audio(path)

    assert np.array_equal(read_audio(str(path)), expected)
    assert np.array_equal(read_audio(content), expected)
    assert np.array_equal(read_audio(io.BytesIO(content)), expected)
    with open(path, "rb") as file:
        assert np.array_equal(read_audio(file), expected)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        assert np.array_equal(read_audio("-"), expected)


@pytest.mark.parametrize("kind", ["wav", "m4a", "flac"])
def test_a_real_pipe_to_standard_input(kind):
    speech = speech_like(2, 44100)
    content = with_soundfile(speech, 44100) if kind == "wav" else with_ffmpeg(speech, kind)
    program = "from voxmlx.audio.decode import read_audio; print(len(read_audio('-')))"

    result = subprocess.run(
        [sys.executable, "-c", program], input=content, capture_output=True, check=True
    )

    assert int(result.stdout) == pytest.approx(32000, abs=500)
    assert result.stderr == b""


def test_arrays():
    speech = speech_like(3, 44100)
    expected = at_16k(speech, 44100)
    stereo = np.stack([speech, np.zeros_like(speech)], axis=1)

    assert np.array_equal(read_audio(speech, 44100), expected)
    assert np.array_equal(read_audio(mx.array(speech), sample_rate=44100), expected)
    assert np.abs(read_audio(stereo * 2, 44100.0) - expected).max() < 1e-6
    assert np.abs(read_audio((speech * 32768).astype(np.int16), 44100) - expected).max() < 1e-4


def test_chunks_are_about_two_seconds():
    with open_audio(with_soundfile(speech_like(9, 44100), 44100)) as reader:
        lengths = [len(chunk) for chunk in reader]

    assert sum(lengths) == 9 * SAMPLE_RATE
    assert all(28000 < n < 36000 for n in lengths[:4])


def test_a_reader_is_read_once_and_closes_itself():
    file = io.BytesIO(with_soundfile(speech_like(5), 16000))
    reader = open_audio(file)
    first = next(iter(reader))

    rest = list(reader)
    assert len(first) and rest == []  # leaving the first loop closed the reader
    reader.close()
    assert not file.closed


def test_closing_early_stops_the_chunks():
    reader = open_audio(with_soundfile(speech_like(9), 16000))
    reader.close()

    assert list(reader) == []


def test_iterating_in_two_steps_continues():
    reader = open_audio(with_soundfile(speech_like(9), 16000))
    chunks = iter(reader)
    first = next(chunks)

    assert len(first) + sum(len(chunk) for chunk in chunks) == 9 * 16000


def test_memory_does_not_hold_the_recording():
    content = with_soundfile(np.tile(speech_like(10, 44100), (18, 1)).reshape(-1), 44100)
    tracemalloc.start()
    with open_audio(content) as reader:
        n = sum(len(chunk) for chunk in reader)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert n == 180 * SAMPLE_RATE
    assert peak < 6e6  # all of it in float32 would be 32 MB


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 20000.0])
@pytest.mark.parametrize("position", [0, 40000, 79999])
def test_samples_that_are_no_sound_are_located(value, position):
    samples = speech_like(5)
    samples[position] = value

    with pytest.raises(AudioError) as caught:
        read_audio(with_soundfile(samples, 16000, subtype="FLOAT"))

    assert str(caught.value) == (
        f"320080 bytes: the sample at {position / 16000:.3f} s is {value:g}; "
        "expected samples in [-1, 1]; repair or scale them"
    )


def test_opposite_infinities_are_found():
    samples = np.stack([speech_like(1), speech_like(1)], axis=1)
    samples[5] = (np.inf, -np.inf)
    with pytest.raises(AudioError, match="the sample at 0.000 s is nan"):
        read_audio(samples, 16000)


def test_loud_samples_are_kept():
    assert read_audio(np.full(100, 3.0, np.float32), 16000).max() == 3.0


@pytest.mark.parametrize("rate", [1, 999, 768001, 2_000_000_000])
def test_an_impossible_rate_in_a_header_is_named(rate):
    content = wav_with_rate(with_soundfile(speech_like(0.1), 16000), rate)
    with pytest.raises(AudioError, match=f"its sample rate is {rate} Hz; .* 1000 to 768000 Hz"):
        open_audio(content)


def test_a_sample_rate_is_for_arrays_only():
    with pytest.raises(ValueError, match="sample_rate= is for arrays, got 16000 with talk.wav"):
        open_audio("talk.wav", sample_rate=16000)
    with pytest.raises(ValueError, match="needs sample_rate="):
        open_audio(np.zeros(10))


@pytest.mark.parametrize("empty", [b"", np.zeros(0, np.float32), np.zeros((0, 2))])
def test_nothing_to_hear(empty):
    rate = None if isinstance(empty, bytes) else 16000
    with pytest.raises(AudioError, match="(is empty|holds no samples)"):
        open_audio(empty, rate)


def test_one_sample_is_a_recording():
    assert len(read_audio(np.zeros(1, np.float32), 16000)) == 1


def test_a_failing_decoder_is_closed():
    class Broken:
        duration_s = None
        closed = False

        def blocks(self):
            raise AudioError("talk: broken")
            yield

        def close(self):
            self.closed = True

    decoder, file = Broken(), io.BytesIO()
    with pytest.raises(AudioError, match="^talk: broken$"):
        AudioReader("talk", decoder, file)
    assert decoder.closed and file.closed


def test_mlx_is_not_imported():
    program = """
import sys, types
package = types.ModuleType("voxmlx")  # without the package's own imports
package.__path__ = ["voxmlx"]
sys.modules["voxmlx"] = package
import voxmlx.audio.decode, voxmlx.audio.mel
assert not any(name.split(".")[0] == "mlx" for name in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
