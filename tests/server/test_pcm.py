"""Encodings against libsndfile, which knows G.711 by itself."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from voxmlx.server.pcm import ENCODINGS, PcmDecoder, PcmError, from_base64


@pytest.mark.parametrize("encoding, subtype", [("pcm_mulaw", "ULAW"), ("pcm_alaw", "ALAW")])
def test_g711_equals_libsndfile(encoding, subtype):
    data = bytes(range(256))

    expected, _ = soundfile.read(
        io.BytesIO(data), format="RAW", subtype=subtype, samplerate=8000, channels=1
    )

    np.testing.assert_allclose(PcmDecoder(encoding).decode(data), expected, atol=1e-6)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("size", [1, 3, 7])
def test_split_equals_whole(encoding, size):
    data = np.random.default_rng(0).bytes(240)
    split = PcmDecoder(encoding)

    parts = [split.decode(data[i : i + size]) for i in range(0, len(data), size)]

    whole = PcmDecoder(encoding).decode(data)
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert whole.dtype == np.float32 and np.isfinite(whole).all() and np.abs(whole).max() <= 1


def test_integer_scales():
    data = np.array([-32768, 0, 16384], "<i2").tobytes()
    assert PcmDecoder("pcm_s16le").decode(data).tolist() == [-1, 0, 0.5]
    data = np.array([-(2**31), 2**30], "<i4").tobytes()
    assert PcmDecoder("pcm_s32le").decode(data).tolist() == [-1, 0.5]


def test_bad_floats_become_silence():
    data = np.array([np.nan, np.inf, 0.5, 9.0], "<f4").tobytes()
    assert PcmDecoder("pcm_f32le").decode(data).tolist() == [0, 0, 0.5, 1]


def test_half_a_sample_is_forgotten_on_clear():
    decoder = PcmDecoder("pcm_s16le")
    decoder.decode(b"\x01")
    decoder.clear()
    assert decoder.decode(b"\x00\x40").tolist() == [0.5]


@pytest.mark.parametrize("text", ["!", "abc", "é", "AAA=A", "AAAA\n"])
def test_bad_base64_is_refused(text):
    with pytest.raises(PcmError):
        from_base64(text)


def test_unknown_encoding_is_refused():
    with pytest.raises(ValueError, match="pcm_s16le.*'opus'"):
        PcmDecoder("opus")
