from __future__ import annotations

import pytest

from voxmlx.streaming.timeline import Timeline


def test_without_silence_times_stay():
    assert Timeline().audio_s(12.345678901) == 12.345678901


@pytest.mark.parametrize(
    ("stream_s", "audio_s"),
    [(0.5, 0.5), (1.0, 1.0), (1.5, 1.0), (3.0, 1.0), (4.0, 2.0), (6.0, 4.0), (6.2, 4.0), (7, 4.5)],
)
def test_inserted_silence_is_skipped(stream_s, audio_s):
    timeline = Timeline()
    timeline.insert(1.0, 2.0)
    timeline.insert(6.0, 0.5)

    assert timeline.audio_s(stream_s) == audio_s
