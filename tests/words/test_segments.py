from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from voxmlx.types import Word
from voxmlx.words import Segmenter, join_words, segments_of
from voxmlx.words.grouper import MAX_WORD_S
from voxmlx.words.segments import HARD_CHARS, HARD_S, PAUSE_S, SOFT_S


def spoken(text: str, gap_s: float = 0.0, each_s: float = 0.3) -> list[Word]:
    words, now_s = [], 0.0
    for part in text.split():
        words.append(Word(part, now_s, now_s + each_s))
        now_s += each_s + gap_s
    return words


def test_sentences_become_segments():
    segments = segments_of(spoken("Hello there. How are you, Mr. Smith? Fine"))
    assert [s.text for s in segments] == ["Hello there.", "How are you, Mr. Smith?", "Fine"]
    assert segments[1].start_s == segments[1].words[0].start_s
    assert segments[1].end_s == segments[1].words[-1].end_s


def test_long_pause_ends_a_segment():
    first, second = Word("one", 0.0, 0.5), Word("two", 0.5 + PAUSE_S + 0.01, 2.0)
    assert [s.text for s in segments_of([first, second])] == ["one", "two"]
    close = Word("two", 0.5 + PAUSE_S - 0.01, 2.0)
    assert [s.text for s in segments_of([first, close])] == ["one two"]


def test_a_pause_and_a_sentence_end_can_come_with_one_word():
    segmenter = Segmenter()
    assert segmenter.add(Word("one", 0.0, 0.5)) == []
    assert [s.text for s in segmenter.add(Word("Two.", 3.0, 3.5))] == ["one", "Two."]
    assert segmenter.finalize() == []


def test_long_speech_breaks_at_a_comma_then_anywhere():
    words = spoken("word " * 60 + "comma, " + "word " * 60, each_s=0.3)
    segments = segments_of(words)
    assert segments[0].text.endswith("comma,")
    assert segments[0].end_s - segments[0].start_s > SOFT_S
    endless = segments_of(spoken("word " * 400, each_s=0.3))
    assert all(s.end_s - s.start_s < HARD_S + 1 for s in endless)
    assert all(len(s.text) <= HARD_CHARS + 5 for s in endless)


def test_empty_list_has_no_segments():
    assert segments_of([]) == []
    assert Segmenter().finalize() == []


def test_advance_closes_only_when_a_pause_is_certain():
    segmenter = Segmenter()
    segmenter.add(Word("one", 0.0, 0.5))
    assert segmenter.advance(0.5 + PAUSE_S + MAX_WORD_S) == []
    assert [s.text for s in segmenter.advance(0.5 + PAUSE_S + MAX_WORD_S + 0.01)] == ["one"]
    assert segmenter.advance(100.0) == []


word_lists = st.lists(
    st.tuples(
        st.sampled_from(["a", "end.", "so,", "long" * 40]), st.floats(0, 2), st.floats(0, 40)
    ),
    max_size=30,
)


@given(word_lists)
def test_segments_hold_every_word_once(items):
    words, now_s = [], 0.0
    for text, gap_s, length_s in items:
        words.append(Word(text, now_s + gap_s, now_s + gap_s + length_s))
        now_s += gap_s + length_s
    segments = segments_of(words)
    assert [word for segment in segments for word in segment.words] == words
    assert all(segment.words for segment in segments)
    assert all(segment.text == join_words(segment.words) for segment in segments)
