from __future__ import annotations

import pytest

from voxmlx.generation.eos_hold import EosHold
from voxmlx.generation.rut_guard import RutGuard


def states(rule, tokens):
    state = rule.initial
    for token in tokens:
        state = rule.next(state, token)
    return state


@pytest.mark.parametrize(
    ("n_pads", "penalty"), [(0, 0), (200, 0), (201, 0.5), (213, 6.5), (214, 7), (100_000, 7)]
)
def test_penalty_grows_to_its_cap(n_pads, penalty):
    guard = RutGuard(32)
    bias = guard.bias(states(guard, [32] * n_pads))

    assert bias == ({32: -penalty} if penalty else {})


@pytest.mark.parametrize("token", [33, 1000, 2])
def test_any_other_token_ends_the_run(token):
    guard = RutGuard(32)

    assert guard.bias(states(guard, [32] * 300 + [token])) == {}


def test_state_is_bounded():
    guard = RutGuard(32)

    assert states(guard, [32] * 1000) == states(guard, [32] * 2000)


def test_wrong_constants():
    with pytest.raises(ValueError, match="free_run must be 0 or more, got -1"):
        RutGuard(32, free_run=-1)
    with pytest.raises(ValueError, match="slope and cap must be positive, got 0, 7.0"):
        RutGuard(32, slope=0)


def test_eos_is_barred_at_first():
    hold = EosHold(2, n_tokens=3)

    assert hold.bias(states(hold, [5, 5])) == {2: -float("inf")}
    assert hold.bias(states(hold, [5, 5, 5])) == {}
    assert states(hold, [5] * 3) == states(hold, [5] * 9)
