"""Texts of overlapping windows join to one text, whatever pieces they come in."""

from __future__ import annotations

import random

import pytest

from voxmlx.words import overlap
from voxmlx.words.overlap import OverlapJoiner, find_cut


@pytest.fixture(autouse=True)
def few_words_held(monkeypatch):
    monkeypatch.setattr(overlap, "N_HELD", 12)


def join(windows: list[str], sizes: list[int]) -> tuple[str, OverlapJoiner]:
    """Feed windows in pieces of the given sizes; joined text and the joiner."""
    joiner, text, n = OverlapJoiner(), "", 0
    for i, window in enumerate(windows):
        joiner.start(more=i + 1 < len(windows))
        while window:
            size = sizes[n % len(sizes)]
            n += 1
            text += joiner.add(window[:size])
            window = window[size:]
        text += joiner.end()
    return text, joiner


def numbers(first: int, last: int) -> str:
    return " ".join(f"w{i}" for i in range(first, last))


@pytest.mark.parametrize("sizes", [[1], [3, 1, 7], [1000]])
def test_shared_words_stand_once(sizes):
    windows = [numbers(0, 40), numbers(33, 70), numbers(64, 90)]

    text, joiner = join(windows, sizes)

    assert text == numbers(0, 90)
    assert "".join(joiner.parts) == text
    assert joiner.n_settled == 2


def test_words_at_the_edges_are_taken_from_the_other_window():
    left = "so we met at the old mill by the riv"
    right = "lt the old mill by the river and talked"

    assert join([left, right], [5])[0] == "so we met at the old mill by the river and talked"


def test_case_and_punctuation_may_differ():
    left = "he said that we go home now. And"
    right = "That we go home now, and then we slept"

    assert join([left, right], [4])[0] == "he said that we go home now, and then we slept"


def test_nothing_in_common_keeps_every_word():
    assert join(["one two three four", "five six seven"], [3])[0] == (
        "one two three four five six seven"
    )


def test_empty_windows():
    assert join(["", numbers(0, 5)], [2])[0] == numbers(0, 5)
    assert join([numbers(0, 5), ""], [2])[0] == numbers(0, 5)
    assert join(["", ""], [2])[0] == ""


def test_a_single_window_is_given_out_at_once():
    joiner = OverlapJoiner()
    joiner.start(more=False)

    assert [joiner.add(text) for text in (" Hel", "lo wor", "ld. ")] == [" Hel", "lo wor", "ld. "]
    assert joiner.end() == ""


def test_pieces_never_change_the_text():
    rng = random.Random(0)
    words = [rng.choice("the of and to a in is it you that".split()) for _ in range(120)]
    windows = [" ".join(words[a:b]) for a, b in ((0, 50), (42, 90), (83, 120))]
    whole = join(windows, [10**6])[0]

    for _ in range(20):
        assert join(windows, [rng.randint(1, 9) for _ in range(7)])[0] == whole
    assert whole == " ".join(words)


def test_one_common_word_is_chance():
    assert find_cut("a b c d".split(), "x b y z".split()) == (4, 0)
    assert find_cut(["yes"], ["Yes."]) == (0, 0)
    assert find_cut([], ["a"]) == (0, 0)
