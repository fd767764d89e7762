"""Mistral's dialect. Every server frame passes the SDK's own parser."""

from __future__ import annotations

import numpy as np
import pytest

from tests.server.frames import MODEL, b64, frames, kinds, news, pcm, send
from voxmlx.engine.request import EngineFullError, Update
from voxmlx.server.protocols.common import Close, Feed, Finish, Flush, Start
from voxmlx.server.protocols.mistral import MistralProtocol

parser = pytest.importorskip("mistralai.extra.realtime.connection")


def validate(actions):
    for frame in frames(actions):
        event = parser.parse_realtime_event(frame)
        assert not isinstance(event, parser.UnknownRealtimeEvent), event
    return actions


def update(**session):
    return {"type": "session.update", "session": session}


def append(data: bytes):
    return {"type": "input_audio.append", "audio": b64(data)}


END = {"type": "input_audio.end"}


def test_the_whole_exchange():
    protocol = MistralProtocol(MODEL, {"model": "tiny"})
    validate(protocol.greet())
    audio_format = {"encoding": "pcm_s16le", "sample_rate": 16000}
    frame = update(audio_format=audio_format, target_streaming_delay_ms=960, language="fr")
    (updated,) = frames(validate(send(protocol, frame)))
    start, feed = send(protocol, append(pcm(1600)))
    turn = start.turn
    assert send(protocol, {"type": "input_audio.flush"}) == [Flush(turn)]
    assert send(protocol, END) == [Finish(turn)]
    told = [action for u in news() for action in validate(protocol.news(turn, u))]

    assert updated["session"]["target_streaming_delay_ms"] == 960
    assert isinstance(start, Start) and isinstance(feed, Feed)
    assert (start.options.delay_ms, start.options.language) == (960, "fr")
    assert kinds(told)[-2:] == ["transcription.done", "Close"]
    assert told[-1] == Close()
    done = frames(told)[-1]
    assert done["text"] == "Hello world." and done["segments"][0]["end"] == 1.0


@pytest.mark.parametrize(
    "encoding, size",
    [("s16le", 2), ("s32le", 4), ("f16le", 2), ("f32le", 4), ("mulaw", 1), ("alaw", 1)],
)
def test_six_encodings(encoding, size):
    protocol = MistralProtocol(MODEL, {})
    audio_format = {"encoding": f"pcm_{encoding}", "sample_rate": 8000}
    validate(send(protocol, update(audio_format=audio_format)))
    feed = send(protocol, append(bytes(80)))[1]
    assert (len(feed.samples), feed.sample_rate) == (80 // size, 8000)
    assert feed.samples.dtype == np.float32


@pytest.mark.parametrize(
    "frame",
    [
        "{]",
        b"\x01",
        {"type": "nope"},
        update(target_streaming_delay_ms=100),
        update(audio_format={"encoding": "opus", "sample_rate": 16000}),
        update(audio_format={"encoding": "pcm_s16le", "sample_rate": 10}),
        append(bytes(262_147)),
        {"type": "input_audio.append", "audio": "###"},
    ],
)
def test_errors_are_typed(frame):
    protocol = MistralProtocol(MODEL, {})
    (error,) = frames(validate(send(protocol, frame)))
    assert error["error"]["code"] == 400 and error["error"]["message"]


def test_settings_are_fixed_once_audio_came():
    protocol = MistralProtocol(MODEL, {})
    send(protocol, append(pcm(10)))
    (error,) = frames(validate(send(protocol, update(target_streaming_delay_ms=480))))
    assert "before the audio" in error["error"]["message"]


def test_nothing_after_the_end():
    protocol = MistralProtocol(MODEL, {})
    assert kinds(send(protocol, END)) == ["Start", "Finish"]
    assert kinds(validate(send(protocol, append(pcm(10))))) == ["error"]
    assert send(protocol, {"type": "input_audio.flush"})[0].frame["type"] == "error"


def test_flush_before_audio_is_nothing():
    assert send(MistralProtocol(MODEL, {}), {"type": "input_audio.flush"}) == []


def test_full_engine_closes():
    protocol = MistralProtocol(MODEL, {})
    turn = send(protocol, append(pcm(10)))[0].turn
    told = validate(protocol.news(turn, Update(error=EngineFullError("full"))))
    assert frames(told)[0]["error"]["code"] == 503
    assert told[-1] == Close(1011)


def test_phrases_to_expect():
    protocol = MistralProtocol(MODEL, {"model": "tiny"})
    send(protocol, update(context_bias=[" Zürich ", ""]))
    assert send(protocol, append(pcm(1600)))[0].options.keywords == ("Zürich",)
