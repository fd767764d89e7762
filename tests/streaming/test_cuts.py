"""Cuts lie in pauses; pieces are neither short nor long."""

from __future__ import annotations

import numpy as np
import pytest

from voxmlx.audio.decode import SAMPLE_RATE
from voxmlx.streaming.cuts import cut_places


def speech(pauses, seconds):
    rng = np.random.default_rng(0)
    samples = rng.standard_normal(round(seconds * SAMPLE_RATE)).astype(np.float32)
    for start_s in pauses:
        start = round(start_s * SAMPLE_RATE)
        samples[start : start + SAMPLE_RATE // 2] *= 0.01
    return samples


def test_cuts_lie_in_the_pauses():
    pauses = [9.0, 21.3, 28.0]

    places = cut_places(speech(pauses, 40), piece_s=10)

    assert len(places) == 3
    for place, start_s in zip(places, pauses, strict=True):
        assert start_s <= place / SAMPLE_RATE <= start_s + 0.5


def test_pieces_keep_to_their_length():
    samples = speech([], 100)

    lengths = np.diff([0, *cut_places(samples, piece_s=10), len(samples)]) / SAMPLE_RATE

    assert lengths.min() >= 5
    assert lengths.max() <= 15.01


@pytest.mark.parametrize("seconds", [0, 0.3, 14])
def test_short_sound_is_not_cut(seconds):
    assert cut_places(speech([], seconds), piece_s=10) == []


def test_pieces_shorter_than_pauses_are_refused():
    with pytest.raises(ValueError, match=r"at least 0\.6"):
        cut_places(speech([], 3), piece_s=0.5)
