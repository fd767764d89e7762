from __future__ import annotations

import io
import json

import pytest

from voxmlx.types import Segment, Timings, Transcription, Word
from voxmlx.writers import FORMATS, Cue, SubtitleWriter, get_writer, result_dict

WORDS = (
    Word("Tom", 0.5, 0.8, 0.91234),
    Word("&", 0.8, 1.0, 0.5),
    Word("<Jo>.", 1.0, 1.76),
    Word("Bye", 3700.0, 3700.5, 1.0),
)
RESULT = Transcription(
    text="Tom & <Jo>. Bye",
    tokens=[33, 1300, 2],
    segments=[
        Segment("Tom & <Jo>.", 0.5, 1.76, WORDS[:3]),
        Segment("Bye", 3700.0, 3700.5, WORDS[3:]),
    ],
    words=list(WORDS),
    duration_s=3701.23456,
    delay_ms=480,
    timings=Timings(audio_s=3701.23456, positions=3),
)
EMPTY = Transcription("", [], [], [], 0.0)


def written(format: str, result: Transcription = RESULT) -> str:
    file = io.StringIO()
    get_writer(format)(result, file)
    return file.getvalue()


def test_txt_is_the_text_and_a_line_end():
    assert written("txt") == "Tom & <Jo>. Bye\n"


def test_srt_numbers_cues_and_uses_commas():
    assert written("srt") == (
        "1\n00:00:00,500 --> 00:00:01,760\nTom & <Jo>.\n\n2\n01:01:40,000 --> 01:01:41,000\nBye\n\n"
    )


def test_vtt_has_a_header_and_escapes():
    assert written("vtt") == (
        "WEBVTT\n\n"
        "00:00:00.500 --> 00:00:01.760\nTom &amp; &lt;Jo&gt;.\n\n"
        "01:01:40.000 --> 01:01:41.000\nBye\n\n"
    )


def test_srt_text_never_looks_like_a_time_line():
    file = io.StringIO()
    SubtitleWriter(file, "srt").write(Cue(0.0, 1.0, ("a --> b",)))
    assert file.getvalue().count("-->") == 1


def test_subtitles_are_written_one_by_one():
    file = io.StringIO()
    writer = SubtitleWriter(file, "vtt")
    assert file.getvalue() == "WEBVTT\n\n"
    writer.write(Cue(0.0, 1.0, ("one", "two")))
    assert file.getvalue().endswith("00:00:00.000 --> 00:00:01.000\none\ntwo\n\n")


def test_tsv_has_milliseconds():
    assert written("tsv") == "start\tend\ttext\n500\t1760\tTom & <Jo>.\n3700000\t3700500\tBye\n"


def test_json_holds_segments_words_and_confidences():
    values = json.loads(written("json"))
    assert values["text"] == RESULT.text
    assert values["duration"] == 3701.235
    assert values["delay_ms"] == 480
    assert values["segments"][0]["words"][0] == {
        "word": "Tom",
        "start": 0.5,
        "end": 0.8,
        "confidence": 0.912,
    }
    assert values["segments"][0]["words"][2]["confidence"] is None
    assert [s["id"] for s in values["segments"]] == [0, 1]
    assert values["timings"]["positions"] == 3
    assert "tokens" not in values
    assert result_dict(RESULT, tokens=True)["tokens"] == [33, 1300, 2]


def test_json_is_readable():
    text = written("json", Transcription("é今", [], [], [], 1.0))
    assert '  "text": "é今",\n' in text


@pytest.mark.parametrize("format", FORMATS)
def test_empty_result_is_a_valid_file(format):
    text = written(format, EMPTY)
    expected = {"txt": "\n", "srt": "", "vtt": "WEBVTT\n\n", "tsv": "start\tend\ttext\n"}
    if format == "json":
        assert json.loads(text)["segments"] == []
    else:
        assert text == expected[format]


def test_unknown_formats_are_refused():
    with pytest.raises(ValueError, match="format must be one of txt, srt, vtt, tsv, json, got 'x'"):
        get_writer("x")
    with pytest.raises(ValueError, match="format must be srt or vtt, got 'txt'"):
        SubtitleWriter(io.StringIO(), "txt")
