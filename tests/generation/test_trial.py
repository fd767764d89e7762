from __future__ import annotations

import pytest

from tests.tiny import tiny_tekken_dict
from voxmlx.generation.bias import START_BUDGET, ContextBias, Piece
from voxmlx.generation.trial import Trial
from voxmlx.tokenizer import Tokenizer

PAD = 32


@pytest.fixture(scope="module")
def bias() -> ContextBias:
    return ContextBias(["x"], Tokenizer.from_dict(tiny_tekken_dict()))


def begin(bias, pieces, gaps=None):
    starts = {}
    for piece in pieces:
        starts.setdefault(piece.tokens[0], []).append(piece)
    return Trial(bias, starts, dict.fromkeys(starts, 0.0) if gaps is None else gaps)


def run(trial, gaps, last=PAD):
    """Answer every pass from a table of gaps by the tokens placed; returns what was placed."""
    placed = []
    while trial.piece is not None:
        tokens = trial.piece.tokens
        placed.append(tokens)
        answers = {(n, i): gaps.get((*tokens[:n], i), 9.0) for n, i in trial.questions()}
        trial.learn(answers, [0] * len(tokens) + [last], [-1.0] * (len(tokens) + 1))
    return placed


def test_piece_within_its_budget_wins(bias):
    trial = begin(bias, [Piece((1, 2, 3), 5.0, True)], {1: 1.0})
    assert trial.questions() == [(1, 2), (2, 3)]
    assert run(trial, {(1, 2): 1.5, (1, 2, 3): 2.5}) == [(1, 2, 3)]
    assert trial.winner == [(1, -2.0), (2, -2.5), (3, -3.5)]


def test_piece_over_its_budget_loses(bias):
    trial = begin(bias, [Piece((1, 2, 3), 4.9, True)], {1: 1.0})
    run(trial, {(1, 2): 1.5, (1, 2, 3): 2.5})
    assert trial.winner == []


def test_first_token_decides_whether_to_try(bias):
    pieces = [Piece((1, 2), 50.0, True)]
    assert begin(bias, pieces, {1: START_BUDGET + 0.1}).piece is None
    assert begin(bias, [Piece((1, 2), 1.0, True)], {1: 1.1}).piece is None
    assert begin(bias, pieces, {1: START_BUDGET}).piece == pieces[0]


def test_word_must_end_behind_a_closed_piece(bias):
    letter = bias._tokenizer.encode("s")[0]
    for closed, won in ((True, []), (False, [(1, -1.0)])):
        trial = begin(bias, [Piece((1,), 5.0, closed)])
        run(trial, {}, last=letter)
        assert trial.winner == won


def test_one_pass_tells_of_all_that_begin_alike(bias):
    pieces = [Piece((1, 2, 3), 5.0, True), Piece((1, 2, 4), 5.0, True), Piece((1, 7), 5.0, True)]
    trial = begin(bias, pieces)
    assert trial.questions() == [(1, 2), (1, 7), (2, 3), (2, 4)]
    gaps = {(1, 2): 0.5, (1, 2, 3): 8.0, (1, 2, 4): 1.0, (1, 7): 6.0}
    assert run(trial, gaps) == [(1, 2, 3), (1, 2, 4)]
    assert [i for i, _ in trial.winner] == [1, 2, 4]


def test_most_budget_left_wins(bias):
    short, long = Piece((1,), 1.0, True), Piece((1, 2, 3), 6.0, True)
    trial = begin(bias, [short, long])
    run(trial, {(1, 2): 1.0, (1, 2, 3): 1.0})
    assert [i for i, _ in trial.winner] == [1, 2, 3]
