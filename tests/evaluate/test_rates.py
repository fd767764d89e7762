from __future__ import annotations

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxmlx.evaluate.normalize import normalize, split_words
from voxmlx.evaluate.rates import Counts, align, character_counts, total, word_counts

WORDS = st.lists(st.sampled_from(["a", "be", "cat", "dog", "été", "x1"]), max_size=12).map(" ".join)


@given(WORDS.filter(bool), WORDS)
def test_words_agree_with_jiwer(reference, hypothesis):
    counts = word_counts(reference, hypothesis)
    assert counts.rate == pytest.approx(jiwer.wer(reference, hypothesis))
    expected = jiwer.process_words(reference, hypothesis)
    assert counts.hits == expected.hits
    assert counts.errors == expected.substitutions + expected.insertions + expected.deletions


@given(WORDS.filter(bool), WORDS)
def test_characters_agree_with_jiwer(reference, hypothesis):
    rate = character_counts(reference, hypothesis).rate
    assert rate == pytest.approx(jiwer.cer(reference, hypothesis))


@pytest.mark.parametrize(
    "reference, hypothesis, expected",
    [
        ("the cat sat", "the cat sat", Counts(3)),
        ("the cat sat", "the bat sat down", Counts(2, 1, 1, 0)),
        ("the cat sat", "cat", Counts(1, 0, 0, 2)),
        ("the cat", "", Counts(0, 0, 0, 2)),
        ("", "two words", Counts(0, 0, 2, 0)),
        ("", "", Counts()),
        ("今天天气", "今日天气", Counts(3, 1, 0, 0)),
        ("用 mlx 跑", "用 mlx 跑了", Counts(3, 0, 1, 0)),
        ("สวัสดี", "สวัสดี", Counts(6)),
        ("안녕 세계", "안녕 세상", Counts(1, 1, 0, 0)),
    ],
)
def test_hand_made_cases(reference, hypothesis, expected):
    assert word_counts(reference, hypothesis) == expected


def test_rate_of_a_sum_is_not_the_mean_of_rates():
    counts = total([word_counts("a", "b"), word_counts("a b c d e f g h i", "a b c d e f g h i")])
    assert counts.rate == 0.1
    assert word_counts("", "two words").rate == 2


def test_alignment_names_the_words():
    assert align("a b c", "a x c d") == [
        ("equal", ("a",), ("a",)),
        ("substitute", ("b",), ("x",)),
        ("equal", ("c",), ("c",)),
        ("insert", (), ("d",)),
    ]


@pytest.mark.parametrize(
    "text, language, expected",
    [
        ("Mr. Brown's colour isn't GREY!", "en", "mister brown is color is not gray"),
        ("twenty-one dollars", "en", "$21"),
        ("Die Straße, gestern.", "de", "die straße gestern"),
        ("Twenty-one", None, "twenty one"),
        ("今天,天气。", "zh", "今天 天气"),
    ],
)
def test_normaliser_follows_the_language(text, language, expected):
    assert normalize(text, language) == expected


def test_normaliser_can_be_chosen():
    assert normalize("  The  Colour! ", "en", "none") == "The Colour!"
    assert normalize("The Colour!", "en", "basic") == "the colour"
    assert normalize("The Colour!", "de", "english") == "the color"
    with pytest.raises(ValueError, match="normalizer must be one of auto, english, basic, none"):
        normalize("a", None, "other")


def test_unspaced_scripts_split_by_character():
    assert split_words("こんにちは world 你好") == [*"こんにちは", "world", *"你好"]
