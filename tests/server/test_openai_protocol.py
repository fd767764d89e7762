"""OpenAI's dialect, frame by frame. Every server frame passes the SDK's own strict types."""

from __future__ import annotations

import numpy as np
import pytest

from tests.server.frames import MODEL, b64, frames, kinds, news, pcm, samples, send
from voxmlx.engine.request import EngineFullError, Update
from voxmlx.server.protocols.common import Cancel, ClientError, Feed, Finish, Start
from voxmlx.server.protocols.openai import OpenAiProtocol

pydantic = pytest.importorskip("pydantic")
realtime = pytest.importorskip("openai.types.realtime")
VALIDATOR = pydantic.TypeAdapter(realtime.RealtimeServerEvent)
DELTA = "conversation.item.input_audio_transcription.delta"


def validate(actions):
    for frame in frames(actions):
        event = VALIDATOR.validate_python(frame, strict=True)
        assert event.type == frame["type"]
        strict = VALIDATOR.dump_python(event, exclude_unset=True)
        assert strict["type"] == frame["type"]
    return actions


def session(**audio_input):
    update = {"type": "transcription", "audio": {"input": audio_input}}
    return {"type": "session.update", "session": update}


def append(data: bytes):
    return {"type": "input_audio_buffer.append", "audio": b64(data)}


COMMIT = {"type": "input_audio_buffer.commit"}


def test_a_turn_by_hand():
    protocol = OpenAiProtocol(MODEL, {})
    validate(protocol.greet())
    updated = validate(send(protocol, session(transcription={"model": "whisper-1"})))
    first = send(protocol, append(pcm(2400)))
    second = send(protocol, append(pcm(2400)))
    committed = validate(send(protocol, COMMIT))
    start = first[0]
    told = [action for update in news() for action in validate(protocol.news(start.turn, update))]

    assert kinds(updated) == ["session.updated"]
    assert [type(a) for a in first + second] == [Start, Feed, Feed]
    assert first[1].sample_rate == 24000
    item_added = "conversation.item.added"
    assert kinds(committed) == ["input_audio_buffer.committed", item_added, "Finish"]
    assert committed[-1] == Finish(start.turn)
    assert kinds(told)[:2] == [DELTA, DELTA]
    assert kinds(told)[-2:] == [
        "conversation.item.input_audio_transcription.completed",
        "conversation.item.done",
    ]
    deltas = "".join(f["delta"] for f in frames(told) if f["type"] == DELTA)
    completed = frames(told)[-2]
    assert completed["transcript"] == deltas == "Hello world."
    assert completed["usage"]["input_tokens"] == 13
    assert completed["words"][0] == {"word": "Hello", "start": 0.1, "end": 0.5, "confidence": 0.9}
    assert {f["item_id"] for f in frames(told) if "item_id" in f} == {start.turn}


def test_text_before_the_commit_adds_the_item_first():
    protocol = OpenAiProtocol(MODEL, {})
    turn = send(protocol, append(pcm(10)))[0].turn

    told = validate(protocol.news(turn, news()[0]))
    committed = validate(send(protocol, COMMIT))

    assert kinds(told) == ["conversation.item.added", DELTA]
    assert kinds(committed) == ["input_audio_buffer.committed", "Finish"]


def test_items_form_a_chain():
    protocol = OpenAiProtocol(MODEL, {})
    ids, previous = [], []
    for _ in range(3):
        ids.append(send(protocol, append(pcm(10)))[0].turn)
        previous.append(frames(validate(send(protocol, COMMIT)))[0]["previous_item_id"])

    assert previous == [None, *ids[:2]]


def test_logprobs_only_when_asked_for():
    plain, asked = OpenAiProtocol(MODEL, {}), OpenAiProtocol(MODEL, {})
    update = session()
    update["session"]["include"] = ["item.input_audio_transcription.logprobs"]
    validate(send(asked, update))
    told = []
    for protocol in (plain, asked):
        turn = send(protocol, append(pcm(10)))[0].turn
        told.append([f for u in news() for f in frames(validate(protocol.news(turn, u)))])

    assert not any("logprobs" in frame for frame in told[0])
    completed = next(f for f in told[1] if f["type"].endswith("completed"))
    assert completed["logprobs"][0] == {
        "token": " Hello",
        "bytes": list(b" Hello"),
        "logprob": -0.1,
    }


@pytest.mark.parametrize(
    "transcription, delay_ms",
    [
        ({"delay": "minimal"}, 160),
        ({"delay": "low"}, 240),
        ({"delay": "medium"}, 480),
        ({"delay": "high"}, 960),
        ({"delay": "xhigh"}, 2400),
        ({"delay": 800}, 800),
        ({"delay_ms": 80}, 80),
        ({}, None),
    ],
)
def test_delay(transcription, delay_ms):
    protocol = OpenAiProtocol(MODEL, {})
    (updated,) = send(protocol, session(transcription=transcription))
    start = send(protocol, append(pcm(10)))[0]

    assert start.options.delay_ms == delay_ms
    shown = updated.frame["session"]["audio"]["input"]["transcription"]["delay_ms"]
    assert shown == (delay_ms or 480)


def test_delay_in_the_address():
    protocol = OpenAiProtocol(MODEL, {"delay_ms": "960"})
    assert send(protocol, append(pcm(10)))[0].options.delay_ms == 960
    with pytest.raises(ClientError, match="2400"):
        OpenAiProtocol(MODEL, {"delay_ms": "481"})


@pytest.mark.parametrize(
    "audio_format, rate, n",
    [
        ({"type": "audio/pcm", "rate": 24000}, 24000, 50),
        ({"type": "audio/pcm", "rate": 16000}, 16000, 50),
        ({"type": "audio/pcmu"}, 8000, 100),
        ({"type": "audio/pcma"}, 8000, 100),
    ],
)
def test_formats(audio_format, rate, n):
    protocol = OpenAiProtocol(MODEL, {})
    updated = send(protocol, session(format=audio_format))
    if rate != 16000:  # the SDK's types know one PCM rate
        validate(updated)
    feed = send(protocol, append(pcm(50)))[1]

    assert (feed.sample_rate, len(feed.samples)) == (rate, n)


def test_audio_split_byte_by_byte_is_the_same_audio():
    data = pcm(200)
    whole, split = OpenAiProtocol(MODEL, {}), OpenAiProtocol(MODEL, {})

    expected = samples(send(whole, append(data)))
    parts = [samples(send(split, append(data[i : i + 1]))) for i in range(len(data))]

    np.testing.assert_array_equal(np.concatenate(parts), expected)


def test_server_vad_makes_turns():
    protocol = OpenAiProtocol(MODEL, {})
    detection = {"type": "server_vad", "silence_duration_ms": 200, "prefix_padding_ms": 100}
    validate(send(protocol, session(turn_detection=detection)))
    rng = np.random.default_rng(0)
    quiet = np.zeros(24000)
    loud = np.concatenate([quiet, rng.normal(0, 0.1, 12000), quiet])
    data = (np.concatenate([loud, loud]) * 32767).astype("<i2").tobytes()

    actions = []
    for i in range(0, len(data), 4800):
        actions += validate(send(protocol, append(data[i : i + 4800])))

    one_turn = ["Start", "input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped"]
    one_turn += ["input_audio_buffer.committed", "conversation.item.added", "Finish"]
    assert [kind for kind in kinds(actions) if kind != "Feed"] == one_turn * 2
    started = [f for f in frames(actions) if f["type"].endswith("speech_started")]
    stopped = [f for f in frames(actions) if f["type"].endswith("speech_stopped")]
    assert [f["audio_start_ms"] for f in started] == [900, 3400]
    assert [f["audio_end_ms"] for f in stopped] == [1700, 4200]
    assert len(samples(actions)) == 24000 * 1.6


def test_commit_in_vad_keeps_what_was_held():
    protocol = OpenAiProtocol(MODEL, {})
    send(protocol, session(turn_detection={"type": "server_vad"}))
    send(protocol, append(bytes(4800)))

    actions = validate(send(protocol, COMMIT))

    assert kinds(actions)[:2] == ["Start", "Feed"]
    assert len(samples(actions)) == 2400


@pytest.mark.parametrize(
    "frame, code",
    [
        ("{", "invalid_json"),
        (b"\x00", "invalid_json"),
        ("[" * 100_000, "invalid_json"),
        ("[1]", "invalid_json"),
        ("1" * 5000, "invalid_json"),
        ({}, "invalid_event"),
        ({"type": 3}, "invalid_event"),
        ({"type": "response.create"}, "unknown_event"),
        ({"type": "session.update"}, "invalid_event"),
        ({"type": "session.update", "session": {"type": "realtime"}}, "invalid_value"),
        (session(turn_detection={"type": "semantic_vad"}), "invalid_value"),
        (session(turn_detection={"type": "server_vad", "threshold": 2}), "invalid_event"),
        (session(format={"type": "audio/pcm", "rate": 100}), "invalid_value"),
        (session(format={"type": "audio/opus"}), "invalid_event"),
        (session(transcription={"delay": "480"}), "invalid_event"),
        (session(transcription={"delay": 481}), "invalid_value"),
        ({"type": "input_audio_buffer.append"}, "invalid_event"),
        ({"type": "input_audio_buffer.append", "audio": "?"}, "invalid_audio"),
        (COMMIT, "input_audio_buffer_commit_empty"),
    ],
)
def test_bad_frame_is_answered_and_forgotten(frame, code):
    protocol = OpenAiProtocol(MODEL, {})
    if isinstance(frame, dict):
        frame = {**frame, "event_id": "mine"}

    actions = validate(send(protocol, frame))

    (error,) = frames(actions)
    assert error["error"]["code"] == code
    assert error["error"]["event_id"] == ("mine" if isinstance(frame, dict) else None)
    assert [type(a) for a in send(protocol, append(pcm(10)))] == [Start, Feed]


def test_clear_drops_the_turn():
    protocol = OpenAiProtocol(MODEL, {})
    turn = send(protocol, append(pcm(10)))[0].turn

    cleared = validate(send(protocol, {"type": "input_audio_buffer.clear"}))

    assert cleared[0] == Cancel(turn)
    assert kinds(cleared)[1:] == ["input_audio_buffer.cleared"]
    assert protocol.news(turn, news()[0]) == []


def test_failure_names_the_item():
    protocol = OpenAiProtocol(MODEL, {})
    turn = send(protocol, append(pcm(10)))[0].turn

    told = validate(protocol.news(turn, Update(error=EngineFullError("full"))))

    assert frames(told)[-1]["error"]["code"] == "overloaded"


def test_format_cannot_change_inside_a_turn():
    protocol = OpenAiProtocol(MODEL, {})
    send(protocol, append(pcm(10)))
    actions = validate(send(protocol, session(format={"type": "audio/pcmu"})))
    assert frames(actions)[0]["error"]["code"] == "invalid_value"


def test_phrases_to_expect():
    protocol = OpenAiProtocol(MODEL, {})
    send(protocol, session(transcription={"model": "tiny", "keywords": [" Zürich ", ""]}))
    assert send(protocol, append(pcm(2400)))[0].options.keywords == ("Zürich",)
