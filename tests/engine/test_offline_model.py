"""An engine with an offline model: files one at a time, no live audio."""

from __future__ import annotations

import queue

import pytest

from tests.generation.offline_model import tiny_voxtral
from tests.oracle import offline_native as native
from voxmlx.engine.engine import Engine
from voxmlx.engine.request import BadTurnError, Kind, TurnOptions, Update
from voxmlx.offline import OfflinePipeline
from voxmlx.tokenizer import Tokenizer

FILE = TurnOptions(kind=Kind.FILE, language="en")


def pipeline() -> OfflinePipeline:
    return OfflinePipeline(tiny_voxtral(), Tokenizer.from_dict(native.tekken()), context=256)


@pytest.fixture(scope="module")
def engine():
    engine = Engine(pipeline)
    engine.start()
    yield engine
    engine.stop()


def open_turn(engine, samples, options=FILE) -> queue.Queue[Update]:
    updates: queue.Queue[Update] = queue.Queue()
    turn = engine.open(options, updates.put)
    for i in range(0, len(samples), 8000):
        turn.feed(samples[i : i + 8000], 16000)
    turn.finish()
    return updates


def last(updates: queue.Queue[Update]) -> tuple[str, Update]:
    """Text of all updates, and the last one."""
    text = ""
    while True:
        update = updates.get(timeout=60)
        text += update.text
        if update.last:
            return text, update


def test_file_equals_the_pipeline_alone(engine):
    samples = native.recording(2.0, 1)

    text, update = last(open_turn(engine, samples))

    expected = pipeline().generate(samples, sample_rate=16000, language="en")
    assert update.result.tokens == expected.tokens
    assert text == update.result.text == expected.text
    assert update.result.language == "en"


def test_several_files_at_a_time(engine):
    recordings = [native.recording(1.0, seed) for seed in range(3)]
    turns = [open_turn(engine, samples) for samples in recordings]

    for samples, turn in zip(recordings, turns, strict=True):
        expected = pipeline().generate(samples, sample_rate=16000, language="en")
        assert last(turn)[1].result.tokens == expected.tokens


@pytest.mark.parametrize(
    "options, message",
    [
        (TurnOptions(kind=Kind.LIVE), "live audio needs a realtime model"),
        (TurnOptions(kind=Kind.FILE, language="xx"), "language must be one of ar, de, en"),
    ],
)
def test_refusals_end_the_turn_alone(engine, options, message):
    error = last(open_turn(engine, native.recording(0.5, 0), options))[1].error
    assert isinstance(error, BadTurnError) and message in str(error)
    assert last(open_turn(engine, native.recording(0.5, 0)))[1].result is not None
