from __future__ import annotations

import numpy as np

from voxmlx.generation.speculative import N_SEEN, Continuations, Guesser

PAD = 32


def learned(tokens: list[int]) -> Guesser:
    guesser = Guesser(PAD)
    for token in tokens:
        guesser.learn([token], 0, [])
    return guesser


def test_pads_are_guessed_before_anything_was_seen():
    assert Guesser(PAD).guess(3) == [PAD] * 3
    assert learned([7]).guess(3) == [PAD] * 3
    assert Guesser(PAD).guess(0) == Guesser(PAD).guess(-1) == []


def test_a_phrase_is_guessed_again():
    assert learned([5, 6, 7, 8, 9, 5, 6]).guess(4) == [7, 8, 9, 5]
    assert learned([0, 0, 0, 1, 0, 0]).guess(2) == [1, 0]


def test_predictions_behind_a_wrong_guess_come_first():
    guesser = learned([5, 6, 7, 8, 5])
    guesser.learn([6], 3, [7, 40])
    assert guesser.guess(3) == [7, 40, PAD]


def test_the_newest_context_of_a_place_counts():
    seen = Continuations()
    seen.put(0, 1, 10)
    seen.put(0, 1 + N_SEEN, 11)

    assert seen.get(0, 1) == -1
    assert seen.get(0, 1 + N_SEEN) == 11


def test_most_continuations_are_kept():
    """Both tokens choose the place: contexts do not crowd."""
    rng = np.random.default_rng(0)
    contexts = {(int(a), int(b)) for a, b in rng.integers(0, 131072, (N_SEEN // 4, 2))}
    seen = Continuations()
    for i, context in enumerate(contexts):
        seen.put(*context, i)

    found = sum(seen.get(*context) == i for i, context in enumerate(contexts))
    assert found > 0.85 * len(contexts)  # 1 - 1/8 of them for random places
