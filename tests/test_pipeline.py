"""Several recordings at once, and one in pieces, through the public object."""

from __future__ import annotations

import importlib.resources

import numpy as np
import pytest

from voxmlx.audio.decode import SAMPLE_RATE, read_audio
from voxmlx.errors import AudioError
from voxmlx.pipeline import load
from voxmlx.streaming.cuts import cut_places

EXAMPLES = importlib.resources.files("voxmlx") / "assets" / "examples"


@pytest.fixture(scope="module")
def pipeline():
    return load("tiny")


@pytest.fixture(scope="module")
def clips():
    samples = read_audio(str(EXAMPLES / "american_1.ogg"))
    return [samples[: round(n * SAMPLE_RATE)] for n in (2.5, 0.4, 5.0, 1.0, 3.3)]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_list_gives_what_each_gives_alone(pipeline, clips, batch_size):
    options = {"sample_rate": SAMPLE_RATE, "transcription_delay_ms": 240}

    together = pipeline.generate(clips, batch_size=batch_size, **options)

    for clip, result in zip(clips, together, strict=True):
        alone = pipeline.generate(clip, **options)
        assert (result.tokens, result.text) == (alone.tokens, alone.text)
        found, expected = (
            [(word.text, word.start_s, word.end_s) for word in each.words]
            for each in (result, alone)
        )
        assert found == expected


def test_an_empty_list_is_nothing(pipeline):
    assert pipeline.generate([]) == []


def test_a_recording_that_cannot_be_read_is_named(pipeline, clips, tmp_path):
    with pytest.raises(AudioError, match=r"nothing\.wav"):
        pipeline.generate([str(EXAMPLES / "noisy.ogg"), tmp_path / "nothing.wav"])


@pytest.mark.parametrize("batch_size", [0, 65])
def test_batch_size_out_of_range(pipeline, clips, batch_size):
    with pytest.raises(ValueError, match="1 to 64"):
        pipeline.generate(clips, sample_rate=SAMPLE_RATE, batch_size=batch_size)


def test_options_that_exclude_each_other(pipeline, clips):
    for options in ({"stream": True}, {"cut_at_silence": True}):
        with pytest.raises(ValueError, match="one recording"):
            pipeline.generate(clips, sample_rate=SAMPLE_RATE, **options)
    with pytest.raises(ValueError, match="exclude each other"):
        pipeline.generate(clips[0], sample_rate=SAMPLE_RATE, stream=True, cut_at_silence=True)


def test_pieces_are_those_of_single_recordings(pipeline):
    speech = read_audio(str(EXAMPLES / "two_minutes.ogg"))[: 25 * SAMPLE_RATE]
    pause = np.zeros(SAMPLE_RATE, np.float32)
    samples = np.concatenate([speech, pause, speech])
    (cut,) = cut_places(samples)
    assert len(speech) < cut < len(speech) + len(pause)

    result = pipeline.generate(samples, sample_rate=SAMPLE_RATE, cut_at_silence=True)

    parts = np.split(samples, [cut])
    one, other = (pipeline.generate(part, sample_rate=SAMPLE_RATE) for part in parts)
    assert result.tokens == one.tokens + other.tokens
    assert result.text == f"{one.text.strip()} {other.text.strip()}"
    starts = [word.start_s for word in other.words]
    shifted = [word.start_s for word in result.words[len(one.words) :]]
    assert shifted == pytest.approx([start + cut / SAMPLE_RATE for start in starts])
    assert result.duration_s == pytest.approx(len(samples) / SAMPLE_RATE)
