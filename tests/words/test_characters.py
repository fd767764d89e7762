from __future__ import annotations

import pytest

from voxmlx.types import Word
from voxmlx.words.characters import (
    ends_clause,
    ends_sentence,
    is_opening,
    is_unspaced,
    join_words,
    sticks,
)


@pytest.mark.parametrize("char", "今あアขຂကក。Ａ𠀀")
def test_scripts_without_spaces(char):
    assert is_unspaced(char)


@pytest.mark.parametrize("char", "aéЯع한हა1. ")
def test_scripts_with_spaces(char):
    assert not is_unspaced(char)


@pytest.mark.parametrize("char", ".,!?)»」%\u0301\u093e'-…♪ー")
def test_characters_that_cannot_start_a_word(char):
    assert sticks(char)
    assert not is_opening(char)


@pytest.mark.parametrize("char", "(«「“¿$€")
def test_characters_that_belong_to_the_next_word(char):
    assert is_opening(char)
    assert not sticks(char)


@pytest.mark.parametrize(
    "word", ["end.", "end!", "end?”", "終。", "終。」", "अंत।", "نهاية؟", "...", "etc.)", "5."]
)
def test_sentence_ends(word):
    assert ends_sentence(word)
    assert ends_clause(word)


@pytest.mark.parametrize("word", ["Mr.", "(Dr.", "J.", "end", "3.5", "end,", "", '"'])
def test_not_sentence_ends(word):
    assert not ends_sentence(word)


@pytest.mark.parametrize("word", ["end,", "end;", "終、", "so:", "well,”"])
def test_clause_ends(word):
    assert ends_clause(word)
    assert not ends_clause("end")
    assert not ends_clause("")


def test_join_keeps_the_written_spaces():
    words = [Word("a", 0, 1), Word("b", 1, 2), Word("c", 2, 3, space_before=False)]
    assert join_words(words) == "a bc"
    assert join_words([]) == ""
