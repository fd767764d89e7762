"""Guesses are what followed the same tokens last."""

from __future__ import annotations

from voxmlx.generation.lookup import MAX_GUESS, MIN_GUESS, LookupGuesser


def test_guesses_what_followed():
    guesser = LookupGuesser([1, 2, 3, 4, 5, 6, 7, 8])
    guesser.add([9, 2, 3, 4])

    assert guesser.guess(10) == [5, 6, 7, 8]
    assert guesser.guess(2) == [5, 6]


def test_the_latest_continuation_counts():
    guesser = LookupGuesser()
    guesser.add([1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3])

    assert guesser.guess(1) == [5]


def test_new_text_gives_no_guess():
    guesser = LookupGuesser([1, 2, 3, 4])
    guesser.add([7])

    assert guesser.guess(5) == []
    assert LookupGuesser().guess(5) == []


def test_size_follows_success():
    guesser = LookupGuesser(list(range(100)))
    guesser.add([0, 1, 2])
    sizes = []
    for right in (True, True, True, False, False, False, False):
        n = len(guesser.guess(100))
        sizes.append(n)
        guesser.learn(n if right else 0, n)

    assert sizes[0] == 4
    assert max(sizes) == MAX_GUESS
    assert len(guesser.guess(100)) == MIN_GUESS
