"""Which dialect a client of ``/v1/realtime`` speaks."""

from __future__ import annotations

import pytest

from tests.server.frames import MODEL, b64, frames, kinds, pcm, samples, send
from voxmlx.server.protocols.detect import RealtimeProtocol

APPEND = {"type": "input_audio_buffer.append", "audio": b64(pcm(100))}
COMMIT = {"type": "input_audio_buffer.commit"}
FINAL = {**COMMIT, "final": True}
VLLM_BOTH = {"type": "session.update", "model": "tiny", "session": {"model": "tiny"}}


@pytest.mark.parametrize(
    "query, sent, dialect",
    [
        ({"intent": "transcription"}, [], "openai"),
        ({"intent": "transcription"}, [{"type": "session.update", "model": "tiny"}], "openai"),
        ({}, [], "undecided"),
        ({}, [APPEND], "undecided"),
        ({}, [{"type": "session.update", "session": {"type": "transcription"}}], "openai"),
        ({}, [{"type": "session.update", "model": "tiny"}], "vllm"),
        ({}, [VLLM_BOTH], "vllm"),
        ({}, [{"type": "session.update"}], "bare"),
        ({}, [{"type": "session.update", "model": None}], "bare"),
        ({}, [FINAL], "vllm"),
        ({}, [COMMIT], "bare"),
        ({}, [APPEND, COMMIT], "bare"),
        ({}, [APPEND, FINAL], "bare"),
        ({"model": "tiny"}, [APPEND, COMMIT], "openai"),
        ({}, [{**APPEND, "event_id": "e"}, COMMIT], "openai"),
        ({}, [{"type": "input_audio_buffer.clear"}], "openai"),
        ({}, [{**APPEND, "audio": b64(bytes(120_000))}], "bare"),
        ({}, [APPEND] * 101, "bare"),
        ({"model": "tiny"}, [{"type": "session.update", "model": "tiny"}], "vllm"),
    ],
)
def test_dialect(query, sent, dialect):
    protocol = RealtimeProtocol(MODEL, query)
    protocol.greet()
    for frame in sent:
        send(protocol, frame)
    assert protocol.dialect == dialect


def test_no_audio_is_decoded_before_the_decision_and_none_is_lost():
    protocol = RealtimeProtocol(MODEL, {})
    held = [action for _ in range(3) for action in send(protocol, APPEND)]
    decided = send(protocol, {"type": "session.update", "session": {"type": "transcription"}})

    assert held == []
    assert kinds(decided) == ["Start", "Feed", "Feed", "Feed", "session.updated"]
    assert len(samples(decided)) == 300


def test_held_audio_takes_the_rate_of_the_dialect():
    protocol = RealtimeProtocol(MODEL, {})
    send(protocol, APPEND)
    actions = send(protocol, COMMIT)
    assert kinds(actions) == ["Start", "Feed", "Finish"]
    assert actions[1].sample_rate == 16000


def test_greeting_suits_everybody():
    realtime = pytest.importorskip("openai.types.realtime")
    pydantic = pytest.importorskip("pydantic")
    (greeting,) = frames(RealtimeProtocol(MODEL, {}).greet())
    event = pydantic.TypeAdapter(realtime.RealtimeServerEvent).validate_python(greeting)
    assert event.session.type == "transcription"
    assert greeting["id"] and isinstance(greeting["created"], int)


def test_final_commit_first_is_vllms_error():
    (error,) = frames(send(RealtimeProtocol(MODEL, {}), FINAL))
    assert error["code"] == "model_not_validated" and isinstance(error["error"], str)


@pytest.mark.parametrize("frame", ["x", "{}", {"type": "y"}, b"z"])
def test_bad_frames_leave_it_undecided(frame):
    protocol = RealtimeProtocol(MODEL, {})
    (error,) = frames(send(protocol, frame))
    assert error["error"]["type"] == "invalid_request_error" and error["code"]
    assert protocol.dialect == "undecided"


def test_held_bad_audio_is_reported_later():
    protocol = RealtimeProtocol(MODEL, {})
    send(protocol, {"type": "input_audio_buffer.append", "audio": 3})
    send(protocol, APPEND)
    assert kinds(send(protocol, COMMIT)) == ["error", "Start", "Feed", "Finish"]
