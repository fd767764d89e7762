"""A small, fixed part of what ``tests/server/fuzz.py`` does at length; properties of dialects."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.frames import MODEL, news
from tests.server.fuzz import fuzz, problems
from tests.server.mutations import frames
from voxmlx.server.protocols.common import Cancel, Feed, Finish, Flush, Send, Start
from voxmlx.server.protocols.detect import RealtimeProtocol
from voxmlx.server.protocols.mistral import MistralProtocol

pydantic = pytest.importorskip("pydantic")


def test_server_survives_malformed_input(server, pipeline):
    report = fuzz(server, pipeline, n_frames=1500, n_requests=100, seed=7)
    assert problems(report) == [], report


def drive(protocol, messages) -> None:
    """Feed messages and check what comes out: JSON, and turns used in order."""
    open_turns: set[str] = set()
    actions = protocol.greet()
    for message in messages:
        actions = protocol.receive(message)
        for action in actions:
            if isinstance(action, Send):
                assert isinstance(json.loads(json.dumps(action.frame))["type"], str)
            elif isinstance(action, Start):
                assert action.turn not in open_turns
                open_turns.add(action.turn)
            elif isinstance(action, (Feed, Flush)):
                assert action.turn in open_turns
            elif isinstance(action, (Finish, Cancel)):
                open_turns.remove(action.turn)
                for update in news() if isinstance(action, Finish) else ():
                    protocol.news(action.turn, update)
    for turn in open_turns:
        for update in news():
            protocol.news(turn, update)


@pytest.mark.parametrize("query", [{}, {"intent": "transcription"}, {"model": "tiny"}])
def test_realtime_dialects_take_anything(query):
    source = frames(seed=1)
    for _ in range(60):
        drive(RealtimeProtocol(MODEL, query), [next(source) for _ in range(40)])


def test_mistral_takes_anything():
    source = frames(seed=2)
    for _ in range(60):
        drive(MistralProtocol(MODEL, {}), [next(source) for _ in range(40)])


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(_JSON.map(json.dumps), st.text(max_size=60), st.binary(max_size=40))))
def test_no_message_raises(messages):
    drive(RealtimeProtocol(MODEL, {}), messages)
    drive(MistralProtocol(MODEL, {}), messages)


def test_every_openai_frame_is_well_typed_under_fuzz():
    types = pytest.importorskip("openai.types.realtime")
    adapter = pydantic.TypeAdapter(types.RealtimeServerEvent)
    source = frames(seed=3)
    for _ in range(30):
        protocol = RealtimeProtocol(MODEL, {"intent": "transcription"})
        for _ in range(30):
            for action in protocol.receive(next(source)):
                if not isinstance(action, Send):
                    continue
                frame = json.loads(json.dumps(action.frame))
                if frame["type"] == "session.updated":  # the types know one PCM rate
                    frame["session"]["audio"]["input"]["format"].pop("rate", None)
                adapter.validate_python(frame)
