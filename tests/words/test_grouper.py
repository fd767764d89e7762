from __future__ import annotations

import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny import N_SPECIAL, PIECES, tiny_tekken_dict
from voxmlx.tokenizer import Tokenizer
from voxmlx.types import Word
from voxmlx.words import WordGrouper, join_words
from voxmlx.words.grouper import MAX_WORD_CHARS

TOKENIZER = Tokenizer.from_dict(tiny_tekken_dict())
PAD, MARK, EOS = TOKENIZER.pad_id, TOKENIZER.word_id, TOKENIZER.eos_id


def ids_of(*items: int | str | bytes) -> list[int]:
    """Ids, pieces of the vocabulary, or single bytes."""
    ids = []
    for item in items:
        if isinstance(item, int):
            ids.append(item)
        elif isinstance(item, bytes):
            ids += [N_SPECIAL + value for value in item]
        elif item in PIECES:
            ids.append(N_SPECIAL + 256 + PIECES.index(item))
        else:
            ids.append(N_SPECIAL + ord(item))
    return ids


def group(*items: int | str | bytes, **options) -> list[Word]:
    grouper = WordGrouper(TOKENIZER, **options)
    words = [word for k, i in enumerate(ids_of(*items)) for word in grouper.add(k, i)]
    return words + grouper.finalize()


def texts(*items: int | str | bytes) -> list[str]:
    return [word.text for word in group(*items)]


def test_words_split_at_spaces_and_marks():
    assert texts(PAD, MARK, " hello", " world", PAD, MARK, " the") == ["hello", "world", "the"]
    assert texts(MARK, "hello", MARK, "hello") == ["hello", "hello"]
    assert texts(MARK, " w", "on", "t", PAD) == ["wont"]


def test_space_inside_a_token_splits():
    assert texts(" hello", ".\n", "hello") == ["hello.", "hello"]


def test_apostrophe_and_combining_mark_stay_after_a_mark():
    assert texts(" hello", MARK, "'s") == ["hello's"]
    assert texts(MARK, "e", MARK, "\u0301".encode()) == ["e\u0301"]


def test_punctuation_sticks_to_the_word_before():
    assert texts(" hello", ".", MARK, " world", MARK, "!") == ["hello.", "world!"]
    assert texts(" hello", " ?", " world") == ["hello ?", "world"]
    assert texts(" hello", " -", " world", " »") == ["hello -", "world »"]


def test_opening_marks_stick_to_the_word_after():
    assert texts(" hello", " (", "hello", "))", " world") == ["hello", "(hello))", "world"]
    assert texts(" hello", " «", " world", " »", " the") == ["hello", "« world »", "the"]
    assert texts(" hello", " -", "hello") == ["hello", "-hello"]


def test_punctuation_after_a_released_word_stands_alone():
    words = group(" hello", PAD, ".", " world")
    assert [word.text for word in words] == ["hello", ".", "world"]
    assert join_words(words) == "hello. world"


def test_leading_dash_joins_the_first_word():
    assert texts(" -", " hello") == ["- hello"]
    assert texts(" -", PAD, " hello") == ["-", "hello"]


def test_scripts_without_spaces_split_at_tokens():
    words = group(MARK, "今天", "天", "「", "今", "」", "。", "hello")
    assert [word.text for word in words] == ["今天", "天", "「今」。", "hello"]
    assert [word.space_before for word in words] == [True, False, False, False]
    assert join_words(words) == "今天天「今」。hello"


def test_never_splits_inside_a_character():
    first, second, third = "天".encode()
    half = [N_SPECIAL + first, N_SPECIAL + second]
    assert texts("今", *half, N_SPECIAL + third) == ["今", "天"]
    assert texts("今", *half, MARK, N_SPECIAL + third) == ["今", "天"]
    assert texts("今", *half, PAD, PAD, N_SPECIAL + third) == ["今", "天"]
    assert texts("ข", "ำ", "ข") == ["ขำ", "ข"]


def test_broken_bytes_become_replacement_characters():
    assert texts(" hello", b"\xe5", " world") == ["hello\ufffd", "world"]
    assert texts(" hello", b"\xe5\xa4") == ["hello\ufffd"]
    assert texts(b"\xe5") == ["\ufffd"]


def test_words_come_as_soon_as_they_are_settled():
    grouper = WordGrouper(TOKENIZER)
    steps = ids_of(MARK, " hello", ".", " world", PAD, PAD, " (", " the", EOS)
    counts = [len(grouper.add(k, i)) for k, i in enumerate(steps)]
    assert counts == [0, 0, 0, 1, 1, 0, 0, 0, 1]
    assert grouper.finalize() == []


def test_first_word_of_a_group_ends_40_ms_before_its_token():
    words = group(*[PAD] * 9, MARK, " hello", PAD, *[PAD] * 30, MARK, " world")
    assert words[0].end_s == pytest.approx(10 * 0.08 - 0.04)
    assert words[1].end_s == pytest.approx(43 * 0.08 - 0.04)


def test_a_space_of_its_own_is_the_first_token_of_the_word():
    words = group(*[PAD] * 9, MARK, b" ", "5", PAD, PAD, " ", PAD, "5")
    assert [word.end_s for word in words] == pytest.approx([10 * 0.08 - 0.04, 16 * 0.08 - 0.04])


def test_start_is_the_end_of_the_word_before_or_an_estimate_after_a_pause():
    words = group(*[PAD] * 30, MARK, " hello", PAD, MARK, " world", *[PAD] * 20, MARK, " the")
    assert words[0].start_s == pytest.approx(words[0].end_s - (0.02 + 5 * 0.075))
    assert words[1].start_s == words[0].end_s
    assert words[2].start_s == pytest.approx(words[2].end_s - (0.02 + 3 * 0.075))


def test_later_words_of_a_group_end_by_their_token_and_by_their_length():
    words = group(*[PAD] * 20, MARK, *" hello", *" world", " the")
    ends = [word.end_s for word in words]
    assert ends[0] == pytest.approx(21 * 0.08 - 0.04)
    assert ends[1] == pytest.approx(ends[0] + 0.02 + 5 * 0.075)
    assert ends[2] == pytest.approx(ends[1] + 0.02 + 3 * 0.075)
    close = group(*[PAD] * 20, MARK, " hello", " world")
    assert close[1].end_s == pytest.approx(22 * 0.08 - 0.04)


def test_times_stay_inside_the_audio():
    assert group(" hello")[0].start_s == group(" hello")[0].end_s == 0.0
    words = group(*[PAD] * 20, " hello", PAD, " world", duration_s=1.0)
    assert [word.end_s for word in words] == [1.0, 1.0]
    grouper = WordGrouper(TOKENIZER)
    for k, i in enumerate(ids_of(*[PAD] * 30, " hello")):
        grouper.add(k, i)
    grouper.duration_s = 1.5
    assert grouper.settled_s <= 1.5
    assert grouper.finalize()[0].end_s == 1.5


def test_confidence_is_the_geometric_mean():
    grouper = WordGrouper(TOKENIZER)
    ids = ids_of(" w", "on", "t", " the", PAD, "é", " a")
    probabilities = [0.5, 0.25, 1.0, 0.0, 0.1, None, 0.3]
    words = [
        w
        for k, (i, p) in enumerate(zip(ids, probabilities, strict=True))
        for w in grouper.add(k, i, p)
    ]
    words += grouper.finalize()
    assert [word.text for word in words] == ["wont", "the", "é", "a"]
    assert words[0].confidence == pytest.approx(0.125 ** (1 / 3))
    assert words[1].confidence == pytest.approx(0.0, abs=1e-9)
    assert words[2].confidence is None
    assert words[3].confidence == pytest.approx(0.3)


def test_bytes_of_one_character_share_a_confidence():
    grouper = WordGrouper(TOKENIZER)
    for k, i in enumerate(ids_of("天".encode())):
        assert grouper.add(k, i, 0.5) == []
    assert grouper.finalize()[0].confidence == pytest.approx(0.5)


def test_endless_text_without_spaces_keeps_little():
    grouper = WordGrouper(TOKENIZER)
    words = []
    for k, i in enumerate(ids_of("a", "-", " -") * 2000):
        words += grouper.add(k, i, 0.9)
    for k in range(6000, 12_000):
        words += grouper.add(k, ids_of("t" if k % 2 else "?")[0], 0.9)
    words += grouper.finalize()
    assert max(len(word.text) for word in words) <= MAX_WORD_CHARS
    assert sum(sys.getsizeof(value) for value in vars(grouper).values()) < 2000


def test_finalize_starts_afresh():
    grouper = WordGrouper(TOKENIZER)
    assert grouper.add(0, ids_of(" hello")[0]) == []
    assert [word.text for word in grouper.finalize(50)] == ["hello"]
    assert grouper.settled_s == pytest.approx(50 * 0.08 - 0.04)
    assert grouper.add(50, ids_of("hello")[0]) == []
    assert [word.text for word in grouper.finalize()] == ["hello"]


any_token = st.one_of(
    st.sampled_from([PAD, MARK, EOS]),
    st.integers(N_SPECIAL, TOKENIZER.n_vocab - 1),
    st.sampled_from(ids_of(*PIECES)),
)


@given(st.lists(any_token, max_size=80), st.one_of(st.none(), st.floats(0, 5)))
def test_any_tokens_keep_text_order_and_bounds(ids, duration_s):
    grouper = WordGrouper(TOKENIZER, duration_s=duration_s)
    words: list[Word] = []
    for k, i in enumerate(ids):
        settled_s = grouper.settled_s
        new = grouper.add(k, i, 0.5)
        assert all(word.end_s >= settled_s for word in new)
        words += new
    words += grouper.finalize(len(ids))

    assert join_words(words).split() == TOKENIZER.decode(ids).split()
    times = [time for word in words for time in (word.start_s, word.end_s)]
    assert times == sorted(times)
    assert all(0 <= time <= (math.inf if duration_s is None else duration_s) for time in times)
    assert all(word.text == word.text.strip() != "" for word in words)
    assert all(word.confidence == pytest.approx(0.5) for word in words if word.confidence)
