"""Turns on the device thread: the same tokens as alone, whatever else runs."""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
import weakref

import numpy as np
import pytest

from tests.engine.models import live_alone, noise, write_model
from voxmlx.config import KVCacheConfig
from voxmlx.engine import pools
from voxmlx.engine.engine import Engine, EngineError
from voxmlx.engine.request import (
    BadTurnError,
    EngineFullError,
    EngineStoppedError,
    Kind,
    TurnOptions,
    Update,
)
from voxmlx.engine.scheduler import Limits
from voxmlx.errors import CheckpointError, VoxmlxError
from voxmlx.pipeline import Pipeline, load
from voxmlx.streaming.pool import Pool


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def pipeline(folder) -> Pipeline:
    return load(folder)


@pytest.fixture(scope="module")
def engine(folder):
    engine = Engine(lambda: load(folder), Limits(max_live=40, max_files=2, max_waiting=3))
    engine.start()
    yield engine
    engine.stop()


def wait(updates: queue.Queue[Update], timeout_s: float = 60) -> list[Update]:
    """Updates up to the last one."""
    got = [updates.get(timeout=timeout_s)]
    while not got[-1].last:
        got.append(updates.get(timeout=timeout_s))
    return got


def transcribe(engine, samples, options=None, chunk=1280) -> list[Update]:
    updates: queue.Queue[Update] = queue.Queue()
    turn = engine.open(TurnOptions() if options is None else options, updates.put)
    for i in range(0, len(samples), chunk):
        turn.feed(samples[i : i + chunk], 16000)
    turn.finish()
    return wait(updates)


def test_live_turn_equals_a_session_alone(engine, pipeline):
    samples = noise(3, seed=1)

    updates = transcribe(engine, samples, TurnOptions(delay_ms=160, language="en"))

    expected = live_alone(pipeline, samples, 160)
    result = updates[-1].result
    assert result.tokens == expected.tokens and result.words == expected.words
    assert "".join(u.text for u in updates) == result.text == expected.text
    assert [w for u in updates for w in u.words] == result.words
    assert [s for u in updates for s in u.segments] == result.segments
    assert result.language == "en"
    n_text = sum(bool(pipeline.tokenizer.token_bytes(i)) for i in result.tokens)
    assert sum(len(u.pieces) for u in updates) == n_text


def test_each_turn_holds_keys_and_values_as_it_asked(engine, pipeline):
    """Side by side, each as a session alone with the same setting."""
    samples = noise(2, seed=5)
    settings = (None, KVCacheConfig(8), KVCacheConfig(4, "none"))
    news = [queue.Queue() for _ in settings]
    turns = [
        engine.open(TurnOptions(kv=kv), updates.put)
        for kv, updates in zip(settings, news, strict=True)
    ]
    for i in range(0, len(samples), 1280):
        for turn in turns:
            turn.feed(samples[i : i + 1280], 16000)
    for turn in turns:
        turn.finish()

    for kv, updates in zip(settings, news, strict=True):
        options = {} if kv is None else {"kv_bits": kv.bits, "kv_rotation": kv.rotation}
        session = pipeline.stream(**options)
        list(session.events([samples]))
        assert wait(updates)[-1].result.tokens == session.tokens
    assert engine._pools.nbytes == 0  # nobody is left


def test_keys_that_do_not_fit_the_setting_are_refused(engine, monkeypatch):
    def unfit(*args):
        raise ValueError("heads of 32 do not fit")

    monkeypatch.setattr(pools, "make_store", unfit)
    (update,) = transcribe(engine, noise(1, seed=5), TurnOptions(kv=KVCacheConfig(3)))

    assert isinstance(update.error, BadTurnError) and "heads of 32" in str(update.error)


def test_file_equals_generate(engine, pipeline):
    samples = noise(5, seed=2)

    result = transcribe(engine, samples, TurnOptions(kind=Kind.FILE), chunk=16000)[-1].result

    expected = pipeline.generate(samples, sample_rate=16000)
    assert result.tokens == expected.tokens and result.text == expected.text


def test_empty_turn(engine, pipeline):
    result = transcribe(engine, np.zeros(0, np.float32))[-1].result
    assert result.duration_s == 0
    assert result.tokens == live_alone(pipeline, np.zeros(0, np.float32), 480).tokens


def test_32_sessions_that_come_and_go_do_not_touch_each_other(engine, pipeline):
    rng = random.Random(0)
    delays = (80, 480, 960, 2400)
    jobs = [(noise(rng.uniform(0.2, 1.2), seed), delays[seed % 4]) for seed in range(32)]
    expected = [live_alone(pipeline, *job) for job in jobs]
    turns = {}
    results: dict[int, list[Update]] = {}
    waiting = list(range(32))
    positions = [0] * 32
    while waiting or turns:
        if waiting and rng.random() < 0.6:
            number = waiting.pop()
            updates: queue.Queue[Update] = queue.Queue()
            options = TurnOptions(delay_ms=jobs[number][1])
            turns[number] = (engine.open(options, updates.put), updates)
        for number in rng.sample(sorted(turns), k=min(len(turns), rng.randint(1, 8))):
            turn, updates = turns[number]
            n = rng.choice((1, 160, 999, 1280, 4000, 20000))
            samples = jobs[number][0][positions[number] :][:n]
            positions[number] += len(samples)
            turn.feed(samples, 16000)
            if positions[number] == len(jobs[number][0]):
                turn.finish()
                results[number] = updates
                del turns[number]

    for number, updates in results.items():
        result = wait(updates)[-1].result
        assert result is not None and result.tokens == expected[number].tokens, number
        assert result.text == expected[number].text


def test_cancelled_turn_says_nothing_more_and_frees_its_place(engine):
    for seed in range(60):  # more than there are places
        updates: queue.Queue[Update] = queue.Queue()
        turn = engine.open(TurnOptions(), updates.put)
        turn.feed(noise(0.5, seed), 16000)
        turn.cancel()
        turn.feed(noise(0.5, seed), 16000)
        turn.finish()
        assert turn.over
    assert transcribe(engine, noise(0.5, 0))[-1].error is None


def test_too_many_live_turns_are_refused(engine):
    updates: queue.Queue[Update] = queue.Queue()
    turns = [engine.open(TurnOptions(), updates.put) for _ in range(41)]
    assert isinstance(updates.get(timeout=10).error, EngineFullError)
    for turn in turns:
        turn.cancel()
    assert transcribe(engine, noise(0.3, 0))[-1].error is None


def test_waiting_files_get_their_turn(engine, pipeline):
    samples = noise(1, seed=3)
    queues = [queue.Queue() for _ in range(5)]
    for updates in queues:
        turn = engine.open(TurnOptions(kind=Kind.FILE), updates.put)
        turn.feed(samples, 16000)
        turn.finish()
    tokens = [wait(updates)[-1].result.tokens for updates in queues]
    assert all(other == tokens[0] for other in tokens)


def test_resampled_audio(engine):
    updates: queue.Queue[Update] = queue.Queue()
    turn = engine.open(TurnOptions(), updates.put)
    turn.feed(noise(1, seed=4), 24000)
    turn.feed(noise(1, seed=5), 24000)
    turn.finish()
    assert wait(updates)[-1].result.duration_s == pytest.approx(32000 / 24000, abs=1e-3)


@pytest.mark.parametrize("bad", ["rate", "dtype", "delay"])
def test_fault_of_one_turn_ends_that_turn_alone(engine, pipeline, bad):
    samples = noise(1, seed=6)
    bystander: queue.Queue[Update] = queue.Queue()
    other = engine.open(TurnOptions(), bystander.put)
    other.feed(samples[:8000], 16000)
    updates: queue.Queue[Update] = queue.Queue()
    turn = engine.open(TurnOptions(delay_ms=81 if bad == "delay" else None), updates.put)
    turn.feed(samples, 16000)
    if bad == "rate":
        turn.feed(samples, 8000)
    elif bad == "dtype":
        turn.feed(samples.astype(np.float64), 16000)
    error = wait(updates)[-1].error
    other.feed(samples[8000:], 16000)
    other.finish()

    assert isinstance(error, VoxmlxError)
    assert wait(bystander)[-1].result.tokens == live_alone(pipeline, samples, 480).tokens


def test_reserved_places_are_held_and_change_no_token(folder, pipeline):
    kv_bytes = []
    limits = Limits(max_live=3, reserve=True, memory_bytes=10**9)
    engine = Engine(lambda: load(folder), limits, lambda tick: kv_bytes.append(tick.kv_bytes))
    engine.start()
    try:
        held = engine._pools.nbytes
        assert held == engine._pools.reserved_bytes == engine._scheduler.used_bytes > 0
        for seed in (1, 2):
            samples = noise(2, seed)
            result = transcribe(engine, samples)[-1].result
            assert result.tokens == live_alone(pipeline, samples, None).tokens
        assert set(kv_bytes) == {held}
    finally:
        engine.stop()


def test_more_cannot_be_reserved_than_used(folder):
    engine = Engine(lambda: load(folder), Limits(max_live=3, reserve=True, memory_bytes=1000))
    with pytest.raises(EngineFullError, match="3 live turns need"):
        engine.start()


def test_device_fault_ends_open_turns_and_the_engine_goes_on(folder, monkeypatch):
    engine = Engine(lambda: load(folder))
    engine.start()
    try:
        decode, faults = Pool.decode, iter([True])

        held = []

        def fails_once(pool, *limit):
            held.append(weakref.ref(pool))
            return 1 / 0 if next(faults, False) else decode(pool)

        monkeypatch.setattr(Pool, "decode", fails_once)
        # The test runner keeps log entries, and with them the fault's frames.
        monkeypatch.setattr(logging.getLogger("voxmlx.engine.engine"), "disabled", True)
        updates: queue.Queue[Update] = queue.Queue()
        turn = engine.open(TurnOptions(), updates.put)
        turn.feed(noise(2, 0), 16000)
        assert isinstance(wait(updates)[-1].error, EngineError)
        assert transcribe(engine, noise(1, 0))[-1].error is None
        assert held[0]() is None  # its memory must be free before the next batch takes its own
    finally:
        engine.stop()


def test_stop_ends_open_turns(folder):
    engine = Engine(lambda: load(folder))
    engine.start()
    assert engine.alive
    updates: queue.Queue[Update] = queue.Queue()
    engine.open(TurnOptions(), updates.put)
    time.sleep(0.1)
    engine.stop()
    assert isinstance(wait(updates)[-1].error, EngineStoppedError)
    assert not engine.alive
    late: queue.Queue[Update] = queue.Queue()
    engine.open(TurnOptions(), late.put)
    assert isinstance(wait(late)[-1].error, EngineStoppedError)


def test_load_error_is_raised_by_start(tmp_path):
    with pytest.raises(CheckpointError):
        Engine(lambda: load(tmp_path)).start()


def test_backlog_falls_to_nothing(engine):
    updates: queue.Queue[Update] = queue.Queue()
    turn = engine.open(TurnOptions(), updates.put)
    turn.feed(noise(4, 0), 16000)
    assert turn.backlog_s > 0
    deadline = time.monotonic() + 30
    while turn.backlog_s > 0.2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert turn.backlog_s < 0.2
    turn.cancel()


def test_backlog_falls_before_the_first_token(engine):
    """At the longest delay a second of audio gives no token, and still it does not wait."""
    updates: queue.Queue[Update] = queue.Queue()
    turn = engine.open(TurnOptions(delay_ms=2400), updates.put)
    turn.feed(noise(1, 0), 16000)
    deadline = time.monotonic() + 30
    while turn.backlog_s > 0.2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert turn.backlog_s < 0.2 and updates.empty()
    turn.cancel()


def test_many_threads_may_ask(engine, pipeline):
    samples = noise(1, seed=7)
    expected = live_alone(pipeline, samples, 480).tokens
    wrong = []

    def ask():
        if transcribe(engine, samples)[-1].result.tokens != expected:
            wrong.append(1)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
