from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxmlx.types import Word
from voxmlx.words.grouper import MAX_WORD_S
from voxmlx.writers import CueBuilder, cues_of
from voxmlx.writers.cues import MAX_CUE_S, MAX_WIDTH, MIN_CUE_S, display_width


def spoken(text: str, each_s: float = 0.3, start_s: float = 0.0) -> list[Word]:
    return [
        Word(part, start_s + i * each_s, start_s + (i + 1) * each_s)
        for i, part in enumerate(text.split())
    ]


def lines_of(words: list[Word]) -> list[tuple[str, ...]]:
    return [cue.lines for cue in cues_of(words)]


def test_short_sentence_is_one_line():
    (cue,) = cues_of(spoken("Hello there, how are you?"))
    assert cue.lines == ("Hello there, how are you?",)
    assert (cue.start_s, cue.end_s) == (0.0, pytest.approx(1.5))


def test_two_lines_are_balanced_and_break_after_a_comma():
    words = spoken("the quick brown fox jumps over the lazy dog and runs off", each_s=0.2)
    assert lines_of(words) == [("the quick brown fox jumps", "over the lazy dog and runs off")]
    words = spoken("the quick brown fox, who jumps over the lazy dog, runs", each_s=0.2)
    assert lines_of(words) == [("the quick brown fox,", "who jumps over the lazy dog, runs")]


def test_sentence_end_and_pause_start_a_new_cue():
    words = spoken("One two three four. Five six", each_s=0.5)
    assert lines_of(words) == [("One two three four.",), ("Five six",)]
    words = spoken("one two") + spoken("three", start_s=5.0)
    assert lines_of(words) == [("one two",), ("three",)]


def test_very_short_sentences_share_a_cue():
    assert lines_of(spoken("No. Yes. No.", each_s=0.2)) == [("No. Yes. No.",)]


def test_long_speech_breaks_where_it_no_longer_fits():
    cues = cues_of(spoken("abcdefgh " * 40, each_s=0.1))
    assert len(cues) == 5
    assert all(len(line) <= MAX_WIDTH for cue in cues for line in cue.lines)
    assert all(len(cue.lines) == 2 for cue in cues)


def test_slow_speech_breaks_by_time():
    cues = cues_of(spoken("slow " * 16, each_s=1.0))
    assert all(cue.end_s - cue.start_s <= MAX_CUE_S for cue in cues)


def test_short_cue_stays_long_enough_to_read():
    word = Word("Yes.", 2.0, 2.2)
    assert cues_of([word])[0].end_s == 2.0 + MIN_CUE_S
    long = Word("a" * 34, 2.0, 2.5)
    assert cues_of([long])[0].end_s == pytest.approx(4.0)
    assert cues_of([word], duration_s=2.5)[0].end_s == 2.5
    next_word = Word("No.", 3.1, 3.4)
    first, second = cues_of([Word("Yes.", 2.0, 2.2), next_word, Word("So.", 3.4, 3.5)])
    assert (first.end_s, second.start_s) == (3.0, 3.1)


def test_word_longer_than_a_line_is_cut():
    cues = cues_of([Word("x" * 100, 0.0, 3.0)])
    assert [line for cue in cues for line in cue.lines] == ["x" * 42, "x" * 42, "x" * 16]
    assert cues[1].start_s == pytest.approx(2.0)


def test_wide_characters_count_twice():
    assert display_width("今天ab") == 6
    words = [Word("今天", i * 0.3, i * 0.3 + 0.3, space_before=False) for i in range(15)]
    assert lines_of(words) == [("今天" * 7, "今天" * 8)]


def test_control_characters_are_dropped():
    assert lines_of([Word("a\x00b", 0, 1), Word("\x00", 1, 2)]) == [("ab",)]


def test_cue_comes_with_the_word_that_ends_it():
    builder = CueBuilder()
    words = spoken("One two three four.", each_s=0.5)
    assert [cue for word in words for cue in builder.add(word)] == []
    assert len(builder.add(Word("Next", 2.0, 2.4))) == 1


def test_advance_waits_until_nothing_can_change():
    builder = CueBuilder()
    assert builder.advance(10.0) == []
    builder.add(Word("a" * 40, 0.0, 0.5))
    assert builder.advance(0.5 + 0.8 + MAX_WORD_S + 0.01) == []  # would still be read
    (cue,) = builder.advance(40 / 17 + MAX_WORD_S + 0.01)
    assert cue.end_s == pytest.approx(40 / 17)
    assert builder.finalize() == []


def test_three_hours_of_words_take_little_time():
    words = spoken("word " * 30_000, each_s=0.36)
    started = time.perf_counter()
    assert len(cues_of(words)) > 1000
    assert time.perf_counter() - started < 10


texts = st.one_of(
    st.sampled_from(["a", "end.", "so,", "x" * 41, "x" * 43, "x" * 150, "今天"]),
    st.text(st.characters(exclude_categories=["Cs", "Z", "C"]), min_size=1, max_size=50),
)
items = st.tuples(texts, st.floats(0, 3), st.floats(0, 3), st.booleans())


@given(st.lists(items, max_size=40))
def test_cues_never_overlap_and_fit(rows):
    words, now_s = [], 0.0
    for text, gap_s, length_s, space_before in rows:
        words.append(Word(text, now_s + gap_s, now_s + gap_s + length_s, None, space_before))
        now_s += gap_s + length_s
    cues = cues_of(words)
    assert all(cue.start_s < cue.end_s for cue in cues)
    assert all(a.end_s <= b.start_s for a, b in zip(cues, cues[1:], strict=False))
    assert all(1 <= len(cue.lines) <= 2 for cue in cues)
    assert all(0 < display_width(line) <= MAX_WIDTH for cue in cues for line in cue.lines)
    shown = "".join(line for cue in cues for line in cue.lines)
    assert shown.replace(" ", "") == "".join(word.text for word in words)


@given(st.lists(items, max_size=20))
def test_advance_changes_no_cue(rows):
    words, now_s = [], 0.0
    for text, gap_s, length_s, _ in rows:
        start_s = now_s + gap_s
        words.append(Word(text, start_s, start_s + min(length_s, MAX_WORD_S)))
        now_s = words[-1].end_s
    builder = CueBuilder()
    cues = []
    for word in words:
        cues += builder.advance(word.end_s)
        cues += builder.add(word)
    assert cues + builder.finalize() == cues_of(words)
