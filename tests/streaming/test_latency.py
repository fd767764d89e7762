from __future__ import annotations

import pytest

from voxmlx.streaming.latency import LatencyMeter
from voxmlx.types import Segment, SegmentEnd, TextDelta, Word, WordEnd


def test_word_counts_from_its_last_text():
    meter = LatencyMeter()
    meter.add(TextDelta("Hel"), 1.0)
    meter.add(TextDelta("lo wor"), 1.2)
    meter.add(TextDelta("ld."), 1.9)
    meter.add(WordEnd(Word("Hello", 0.2, 0.5)), 2.5)
    meter.add(WordEnd(Word("world.", 0.5, 0.9)), 2.6)
    meter.add(SegmentEnd(Segment("Hello world.", 0.2, 0.9)), 2.7)
    summary = meter.summary()

    assert summary.n_words == 2
    assert summary.max_s == pytest.approx(1.0)
    assert summary.p50_s == pytest.approx(0.85)
    assert summary.mean_s == pytest.approx(0.85)


def test_no_words():
    assert LatencyMeter().summary() is None
