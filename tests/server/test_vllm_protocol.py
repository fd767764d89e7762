"""vLLM's dialect and the bare one, frame by frame."""

from __future__ import annotations

import numpy as np
import pytest

from tests.server.frames import MODEL, b64, frames, kinds, news, pcm, samples, send
from voxmlx.engine.request import EngineStoppedError, Update
from voxmlx.server.protocols.common import Feed, Finish, Start
from voxmlx.server.protocols.vllm import VllmProtocol

UPDATE = {"type": "session.update", "model": "tiny"}
COMMIT = {"type": "input_audio_buffer.commit"}
FINAL = {"type": "input_audio_buffer.commit", "final": True}


def append(data: bytes):
    return {"type": "input_audio_buffer.append", "audio": b64(data)}


def test_the_whole_exchange_twice():
    protocol = VllmProtocol(MODEL, {})
    (created,) = frames(protocol.greet())
    assert created["type"] == "session.created" and created["id"] and created["created"]
    assert send(protocol, UPDATE) == []
    for _ in range(2):
        assert send(protocol, COMMIT) == []
        start, feed = send(protocol, append(pcm(1600)))
        assert isinstance(start, Start) and feed.sample_rate == 16000
        assert send(protocol, FINAL) == [Finish(start.turn)]
        told = frames([action for u in news() for action in protocol.news(start.turn, u)])
        assert {f["type"] for f in told[:-1]} == {"transcription.delta"}
        assert told[-1]["type"] == "transcription.done"
        assert told[-1]["text"] == "".join(f["delta"] for f in told[:-1]) == "Hello world."
        assert told[-1]["usage"]["total_tokens"] == 25
        assert told[-1]["segments"][0]["words"][1]["word"] == "world."


def test_empty_transcription_is_answered():
    protocol = VllmProtocol(MODEL, {})
    send(protocol, UPDATE)
    send(protocol, COMMIT)
    assert kinds(send(protocol, FINAL)) == ["Start", "Finish"]


def test_audio_may_come_before_the_first_commit():
    protocol = VllmProtocol(MODEL, {})
    send(protocol, UPDATE)
    turn = send(protocol, append(pcm(10)))[0].turn
    assert send(protocol, COMMIT) == []
    assert send(protocol, COMMIT) == []
    assert [type(a) for a in send(protocol, append(pcm(10)))] == [Feed]
    assert send(protocol, FINAL) == [Finish(turn)]


@pytest.mark.parametrize(
    "frame, code",
    [
        (FINAL, "model_not_validated"),
        (COMMIT, "model_not_validated"),
        ({"type": "session.update"}, "invalid_event"),
        ({"type": "session.update", "model": "nonexistent-model"}, "model_not_found"),
        ({"type": "input_audio_buffer.append", "audio": ""}, "invalid_audio"),
        ({"type": "input_audio_buffer.append", "audio": "a"}, "invalid_audio"),
        ({"type": "what"}, "unknown_event"),
        ("nonsense", "invalid_json"),
        ({**UPDATE, "delay_ms": 90}, "invalid_value"),
        ({**UPDATE, "sample_rate": 90}, "invalid_value"),
        ({**COMMIT, "final": "yes"}, "invalid_event"),
    ],
)
def test_errors_are_strings_with_a_code(frame, code):
    (error,) = frames(send(VllmProtocol(MODEL, {}), frame))
    assert error["type"] == "error" and error["code"] == code
    assert isinstance(error["error"], str)
    if code == "model_not_found":
        assert "nonexistent-model" in error["error"]


def test_any_voxtral_is_this_one():
    frame = {"type": "session.update", "model": "mistralai/Voxtral-Mini-4B-Realtime-2602"}
    assert send(VllmProtocol(MODEL, {}), frame) == []


def test_own_fields():
    protocol = VllmProtocol(MODEL, {})
    send(protocol, {**UPDATE, "delay_ms": 960, "sample_rate": 48000})
    start, feed = send(protocol, append(pcm(10)))
    assert (start.options.delay_ms, feed.sample_rate) == (960, 48000)


def test_engine_failure_leaves_the_socket_open():
    protocol = VllmProtocol(MODEL, {})
    send(protocol, UPDATE)
    turn = send(protocol, append(pcm(10)))[0].turn
    (error,) = frames(protocol.news(turn, Update(error=EngineStoppedError("stopped"))))
    assert error["code"] == "processing_error"


def test_jetson_client():
    """``session.update`` with nothing, appends, one commit with nothing."""
    protocol = VllmProtocol(MODEL, {}, bare=True)
    assert send(protocol, {"type": "session.update"}) == []
    data = pcm(20000)
    actions = [
        a for i in range(0, len(data), 16000) for a in send(protocol, append(data[i:][:16000]))
    ]
    turn = actions[0].turn
    assert send(protocol, COMMIT) == [Finish(turn)]
    np.testing.assert_array_equal(samples(actions) * 32768, np.frombuffer(data, "<i2"))


def test_old_vllm_client():
    """A commit at once, without ``session.update``; then audio and the final commit."""
    protocol = VllmProtocol(MODEL, {}, bare=True)
    assert send(protocol, COMMIT) == []
    turn = send(protocol, append(pcm(10)))[0].turn
    assert send(protocol, FINAL) == [Finish(turn)]
    assert kinds(send(protocol, FINAL)) == ["Start", "Finish"]


def test_phrases_to_expect_last_until_they_are_changed():
    protocol = VllmProtocol(MODEL, {})
    send(protocol, {**UPDATE, "keywords": [" Zürich ", "", "x" * 101]})
    for update, expected in (({}, ("Zürich",)), ({"keywords": ["Ada"]}, ("Ada",))):
        send(protocol, {**UPDATE, **update})
        start = send(protocol, append(pcm(1600)))[0]
        assert start.options.keywords == expected
        send(protocol, FINAL)
