"""The book of turns: admission, order, fairness, memory."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxmlx.engine.request import EngineFullError, Kind
from voxmlx.engine.scheduler import (
    LEAST_LIVE,
    LIVE_POSITIONS,
    MAX_AGE_S,
    MAX_SLICE,
    MIN_SLICE,
    Limits,
    Scheduler,
    period_s,
)

LIVE, FILE = Kind.LIVE, Kind.FILE


def test_live_turns_are_turned_away_when_full():
    scheduler = Scheduler(Limits(max_live=2))
    assert scheduler.submit(0, LIVE, 1) and scheduler.submit(1, LIVE, 1)
    with pytest.raises(EngineFullError, match="live"):
        scheduler.submit(2, LIVE, 1)
    scheduler.leave(0)
    assert scheduler.submit(2, LIVE, 1)


def test_files_wait_in_line():
    scheduler = Scheduler(Limits(max_files=1, max_waiting=2))
    assert [scheduler.submit(i, FILE, 1) for i in range(3)] == [True, False, False]
    with pytest.raises(EngineFullError, match="waiting"):
        scheduler.submit(3, FILE, 1)
    assert scheduler.leave(0) == [1]
    assert scheduler.leave(2) == []
    assert scheduler.leave(1) == []
    assert (scheduler.n_files, scheduler.n_waiting) == (0, 0)


def test_files_leave_places_to_live_turns():
    scheduler = Scheduler(Limits(max_live=1, max_files=1))
    scheduler.submit(0, FILE, 1)
    scheduler.submit(1, FILE, 1)
    assert scheduler.submit(2, LIVE, 1)


def test_memory_budget():
    scheduler = Scheduler(Limits(memory_bytes=10))
    scheduler.submit(0, LIVE, 6)
    with pytest.raises(EngineFullError):
        scheduler.submit(1, LIVE, 6)
    assert not scheduler.submit(2, FILE, 6)
    with pytest.raises(EngineFullError, match="11 bytes"):
        scheduler.submit(3, FILE, 11)
    assert scheduler.leave(0) == [2]
    assert scheduler.used_bytes == 6


def test_files_alone_work_in_full_and_beside_live_turns_one_by_one():
    scheduler = Scheduler(Limits(max_files=3))
    for turn in range(3):
        scheduler.submit(turn, FILE, 1)
    assert scheduler.plan_files([0, 1, 2]) == [(i, MAX_SLICE) for i in range(3)]

    scheduler.submit(3, LIVE, 1)
    plans = [scheduler.plan_files([0, 1, 2]) for _ in range(6)]

    assert [plan[0][0] for plan in plans] == [0, 1, 2, 0, 1, 2]
    assert {n for plan in plans for _, n in plan} == {MIN_SLICE}


def test_slices_follow_the_length_of_ticks():
    scheduler = Scheduler(Limits(tick_s=0.04))
    scheduler.submit(0, FILE, 1)
    scheduler.submit(1, LIVE, 1)
    for _ in range(500):
        scheduler.ticked(0.001)
    assert scheduler.plan_files([0]) == [(0, MAX_SLICE)]
    for _ in range(20):
        scheduler.ticked(0.1)
    assert scheduler.plan_files([0]) == [(0, MIN_SLICE)]


@pytest.mark.parametrize("values", [{"max_live": 129}, {"max_files": -1}, {"tick_s": 0}])
def test_limits_are_checked(values):
    with pytest.raises(ValueError):
        Limits(**values)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from(["live", "file", "leave"]))),
    st.integers(0, 4),
    st.integers(0, 4),
)
def test_no_order_of_calls_breaks_the_limits(calls, max_live, max_files):
    limits = Limits(max_live=max_live, max_files=max_files, max_waiting=3, memory_bytes=5)
    scheduler = Scheduler(limits)
    known = set()
    for turn, what in calls:
        if what == "leave":
            known -= {turn}
            admitted = scheduler.leave(turn)
            assert all(scheduler.is_running(number) for number in admitted)
        elif turn not in known:
            try:
                scheduler.submit(turn, Kind(what), 1)
                known.add(turn)
            except EngineFullError:
                pass
        assert scheduler.n_live <= max_live and scheduler.n_files <= max_files
        assert scheduler.n_waiting <= 3 and scheduler.used_bytes <= 5
        assert scheduler.n_live + scheduler.n_files + scheduler.n_waiting == len(known)


def test_ticks_rest_only_where_audio_stays_young():
    assert period_s(0.01) == pytest.approx(0.015)
    assert all(tick + period_s(tick) <= MAX_AGE_S + 1e-9 for tick in (0.001, 0.03, 0.04, 0.05))
    assert period_s(0.05) == pytest.approx(0.05)  # no rest
    assert period_s(0.2) < 0.2


def test_few_turns_that_are_behind_do_not_widen_the_passes_of_many():
    scheduler = Scheduler(Limits(max_live=64))
    for i in range(64):
        scheduler.submit(i, LIVE, 1)
    newcomer = [38, *[1] * 40]
    assert scheduler.plan_live(newcomer) == LIVE_POSITIONS
    for _ in range(3):
        scheduler.ticked_live(2 * scheduler.limits.tick_s)
    assert scheduler.plan_live(newcomer) == LEAST_LIVE
    assert scheduler.plan_live([38] * 64) == LIVE_POSITIONS
    assert scheduler.plan_live([3] * 33) == 3
    assert not scheduler.goes_on(0.05, 20) and scheduler.goes_on(0.05, 40)
    for _ in range(3):
        scheduler.ticked_live(scheduler.limits.tick_s / 4)
    assert scheduler.plan_live(newcomer) == LIVE_POSITIONS


def test_a_turn_alone_takes_what_it_needs():
    scheduler = Scheduler(Limits())
    scheduler.submit(0, LIVE, 1)
    scheduler.ticked_live(1.0)
    scheduler.ticked_live(1.0)
    assert scheduler.plan_live([38]) == LIVE_POSITIONS
    assert scheduler.goes_on(1.0, 1)


def test_reserved_memory_counts_whatever_runs():
    scheduler = Scheduler(Limits(memory_bytes=10))
    with pytest.raises(EngineFullError, match="11 bytes"):
        scheduler.reserve(11)
    scheduler.reserve(8)
    assert scheduler.submit(0, LIVE, 0)
    assert not scheduler.submit(1, FILE, 3)
    assert scheduler.submit(2, FILE, 2) is False  # behind the other file
    assert scheduler.used_bytes == 8
