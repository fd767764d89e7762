"""Real clients, unchanged: OpenAI's and Mistral's SDKs; the flows of vLLM's and the Jetson's."""

from __future__ import annotations

import asyncio
import base64
import io
import json

import numpy as np
import pytest
from websockets.asyncio.client import connect as connect_async
from websockets.sync.client import connect

from tests.engine.models import live_alone
from tests.server.running import pcm16, wav

KEY = "unused-key"


@pytest.fixture(scope="module")
def expected(pipeline, speech):
    return live_alone(pipeline, speech, 480)


def appends(data: bytes, size: int = 4096):
    for i in range(0, len(data), size):
        audio = base64.b64encode(data[i : i + size]).decode()
        yield json.dumps({"type": "input_audio_buffer.append", "audio": audio})


def read_until(ws, last: str) -> list[dict]:
    frames = [json.loads(ws.recv(timeout=60))]
    while frames[-1]["type"] not in (last, "error"):
        frames.append(json.loads(ws.recv(timeout=60)))
    return frames


def test_openai_transcriptions(server, pipeline, speech):
    openai = pytest.importorskip("openai")
    expected = pipeline.generate(speech, sample_rate=16000)
    file = io.BytesIO(wav(speech))
    file.name = "speech.wav"
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY) as client:
        plain = client.audio.transcriptions.create(model="whisper-1", file=file)
        file.seek(0)
        verbose = client.audio.transcriptions.create(
            model="tiny",
            file=file,
            response_format="verbose_json",
            timestamp_granularities=["word", "segment"],
        )
        file.seek(0)
        srt = client.audio.transcriptions.create(model="tiny", file=file, response_format="srt")
        file.seek(0)
        with client.audio.transcriptions.create(model="tiny", file=file, stream=True) as stream:
            events = list(stream)
        models = client.models.list().data

    assert plain.text == verbose.text == expected.text
    assert [(w.word, w.start) for w in verbose.words] == [
        (w.text, round(w.start_s, 3)) for w in expected.words
    ]
    assert " --> " in srt
    assert "".join(e.delta for e in events[:-1]) == events[-1].text == expected.text
    assert events[-1].usage.total_tokens > 0
    assert [m.id for m in models] == ["tiny"]


def test_openai_realtime(server, pipeline, speech):
    """Every frame passes the SDK's own types."""
    openai = pytest.importorskip("openai")
    pydantic = pytest.importorskip("pydantic")
    types = pytest.importorskip("openai.types.realtime")
    adapter = pydantic.TypeAdapter(types.RealtimeServerEvent)
    update = {
        "type": "transcription",
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "transcription": {"model": "gpt-4o-transcribe", "delay": "low"},
                "turn_detection": None,
            }
        },
        "include": ["item.input_audio_transcription.logprobs"],
    }

    async def talk():
        client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=KEY)
        raw = []
        async with (
            client,
            client.realtime.connect(extra_query={"intent": "transcription"}) as connection,
        ):
            await connection.session.update(session=update)
            for frame in appends(pcm16(speech)):
                await connection.input_audio_buffer.append(audio=json.loads(frame)["audio"])
            await connection.input_audio_buffer.commit()
            while not raw or raw[-1]["type"] != "conversation.item.done":
                raw.append(json.loads(await connection.recv_bytes()))
        return raw

    raw = asyncio.run(talk())

    for frame in raw:
        assert adapter.validate_python(frame).type == frame["type"]
    session = pipeline.stream(transcription_delay_ms=240)
    session.feed((np.frombuffer(pcm16(speech), "<i2") / 32768).astype("float32"), 24000)
    session.close()
    while not session.done:
        session.step()
    completed = next(f for f in raw if f["type"].endswith("completed"))
    assert completed["transcript"] == session.result().text
    assert completed["logprobs"] and completed["words"]


def test_mistral_sdk(server, pipeline, speech):
    pytest.importorskip("mistralai")
    from mistralai.client import Mistral
    from mistralai.extra.realtime import AudioFormat, UnknownRealtimeEvent

    async def chunks():
        data = pcm16(speech)
        for i in range(0, len(data), 3201):
            yield data[i : i + 3201]

    async def talk():
        return [
            event
            async for event in Mistral(api_key=KEY).audio.realtime.transcribe_stream(
                audio_stream=chunks(),
                model="tiny",
                audio_format=AudioFormat(encoding="pcm_s16le", sample_rate=16000),
                server_url=server.ws,
                target_streaming_delay_ms=960,
            )
        ]

    events = asyncio.run(talk())

    assert not any(isinstance(event, UnknownRealtimeEvent) for event in events)
    done = events[-1]
    assert done.type == "transcription.done"
    deltas = "".join(e.text for e in events if e.type == "transcription.text.delta")
    quantised = (speech * 32767).astype("<i2") / 32768
    assert done.text == deltas == live_alone(pipeline, quantised.astype("float32"), 960).text


def said(pipeline, speech) -> str:
    """What the model hears in the 16-bit samples of ``pcm16``."""
    quantised = np.frombuffer(pcm16(speech), "<i2") / 32768
    return live_alone(pipeline, quantised.astype("float32"), 480).text


def test_vllm_client(server, pipeline, speech):
    """The flow of ``openai_realtime_client.py`` with its ``session.update``, twice on a socket."""
    expected = said(pipeline, speech)
    with connect(f"{server.ws}/v1/realtime") as ws:
        assert json.loads(ws.recv())["id"]
        ws.send(json.dumps({"type": "session.update", "model": "mistralai/Voxtral-Mini-4B"}))
        for _ in range(2):
            ws.send(json.dumps({"type": "input_audio_buffer.commit"}))
            for frame in appends(pcm16(speech)):
                ws.send(frame)
            ws.send(json.dumps({"type": "input_audio_buffer.commit", "final": True}))
            frames = read_until(ws, "transcription.done")
            assert frames[-1]["text"] == "".join(f["delta"] for f in frames[:-1]) == expected
            assert frames[-1]["usage"]["total_tokens"] > 0


def test_old_vllm_client_without_update(server, pipeline, speech):
    with connect(f"{server.ws}/v1/realtime") as ws:
        ws.recv()
        ws.send(json.dumps({"type": "input_audio_buffer.commit"}))
        for frame in appends(pcm16(speech)):
            ws.send(frame)
        ws.send(json.dumps({"type": "input_audio_buffer.commit", "final": True}))
        assert read_until(ws, "transcription.done")[-1]["text"] == said(pipeline, speech)


def test_vllm_errors(server):
    with connect(f"{server.ws}/v1/realtime") as ws:
        ws.recv()
        ws.send(json.dumps({"type": "input_audio_buffer.commit", "final": True}))
        assert json.loads(ws.recv())["code"] == "model_not_validated"
        ws.send(json.dumps({"type": "session.update", "model": "nonexistent-model"}))
        assert "nonexistent-model" in json.loads(ws.recv())["error"]


def test_jetson_client(server, pipeline, speech):
    """``session.update`` alone, half-second appends, one commit, then read to the end."""

    async def transcribe():
        async with connect_async(f"{server.ws}/v1/realtime") as ws:
            await ws.recv()
            await ws.send(json.dumps({"type": "session.update"}))
            for frame in appends(pcm16(speech), 16000):
                await ws.send(frame)
            await ws.send(json.dumps({"type": "input_audio_buffer.commit"}))
            text = ""
            while True:
                message = json.loads(await asyncio.wait_for(ws.recv(), timeout=60))
                if message["type"] == "transcription.delta":
                    text += message["delta"]
                elif message["type"] == "transcription.done":
                    return text, message["text"]

    text, whole = asyncio.run(transcribe())
    assert text == whole == said(pipeline, speech)


def test_token_by_token_updates_come_before_the_commit(server, speech):
    with connect(f"{server.ws}/v1/realtime?intent=transcription") as ws:
        ws.recv()
        for frame in appends(pcm16(speech), 1920):
            ws.send(frame)
        kinds = [json.loads(ws.recv(timeout=30))["type"] for _ in range(3)]
    assert kinds[0] == "conversation.item.added"
    assert kinds[1].endswith("transcription.delta")
