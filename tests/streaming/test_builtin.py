"""The model inside the package, on its example recordings: real words at the edges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import voxmlx
from tests.streaming.conftest import drain, random_splits
from voxmlx.audio.decode import read_audio
from voxmlx.pipeline import Pipeline, load
from voxmlx.streaming.iterate import iterate

EXAMPLES = Path(voxmlx.__file__).parent / "assets" / "examples"
RATE = 16000


@pytest.fixture(scope="module")
def tiny() -> Pipeline:
    return load("tiny")


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    return read_audio(EXAMPLES / "american_1.ogg")[: 4 * RATE]


@pytest.fixture(scope="module")
def whole(tiny, clip):
    return tiny.generate(clip, sample_rate=RATE)


def edges(clip: np.ndarray) -> tuple[int, int]:
    """First and last loud sample."""
    loud = np.flatnonzero(np.abs(clip) > 0.03)
    return int(loud[0]), int(loud[-1]) + 1


@pytest.mark.parametrize("delay_ms", [80, 480, 2400])
def test_any_split_gives_the_ids_of_the_whole(tiny, clip, delay_ms):
    clip = clip[: 2 * RATE]
    expected = tiny.generate(clip, sample_rate=RATE, transcription_delay_ms=delay_ms)
    for seed in range(2):
        session = tiny.stream(transcription_delay_ms=delay_ms, rut_guard=False)
        for _ in iterate(session, random_splits(clip, seed)):
            pass
        assert session.tokens == expected.tokens
    assert expected.words


def test_first_word_at_the_first_sample_is_heard(tiny, clip, whole):
    start, _ = edges(clip)
    assert start > 0

    cut = tiny.generate(clip[start:], sample_rate=RATE)
    assert cut.words[0].text == whole.words[0].text


def test_flush_settles_the_last_word(tiny, clip):
    """Speech that stops at the last sample: flush gives what close gives."""
    _, end = edges(clip)
    closed = tiny.generate(clip[:end], sample_rate=RATE)
    session = tiny.stream(rut_guard=False)
    session.feed(clip[:end])
    drain(session)
    before = session.result().words
    session.flush()
    drain(session)

    assert session.result().words == closed.words
    assert len(before) < len(closed.words)
    assert closed.words[-1].end_s <= end / RATE


def test_speech_after_a_flush_is_heard(tiny, clip, whole):
    session = tiny.stream(rut_guard=False)
    for part in (clip, clip):
        session.feed(part)
        session.flush()
        drain(session)
    words = session.result().words
    second = [word for word in words if word.start_s >= len(clip) / RATE - 0.1]

    assert len(second) > len(whole.words) / 2
    assert words[-1].end_s <= 2 * len(clip) / RATE
