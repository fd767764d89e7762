"""Clients choose how keys and values of their session are held, in every dialect."""

from __future__ import annotations

import json

import numpy as np
import pytest
from websockets.sync.client import connect

from tests.engine.models import noise
from tests.server.frames import MODEL, b64, frames, pcm, send
from tests.server.running import pcm16
from voxmlx.config import KVCacheConfig
from voxmlx.server.protocols.common import Start
from voxmlx.server.protocols.mistral import MistralProtocol
from voxmlx.server.protocols.openai import OpenAiProtocol
from voxmlx.server.protocols.vllm import VllmProtocol


def openai(fields):
    session = {"type": "transcription", "audio": {"input": {"transcription": fields}}}
    return {"type": "session.update", "session": session}


DIALECTS = {
    OpenAiProtocol: (openai, "input_audio_buffer.append"),
    VllmProtocol: (
        lambda fields: {"type": "session.update", "model": "tiny", **fields},
        "input_audio_buffer.append",
    ),
    MistralProtocol: (
        lambda fields: {"type": "session.update", "session": fields},
        "input_audio.append",
    ),
}


@pytest.fixture(params=DIALECTS)
def dialect(request):
    update, append = DIALECTS[request.param]
    return request.param(MODEL, {}), update, {"type": append, "audio": b64(pcm(4800))}


def start(protocol, append) -> Start:
    return next(a for a in send(protocol, append) if isinstance(a, Start))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"kv_bits": None, "kv_rotation": None}, None),
        ({"kv_bits": 8}, KVCacheConfig(8, "hadamard")),
        ({"kv_bits": 3, "kv_rotation": "iso"}, KVCacheConfig(3, "iso")),
    ],
)
def test_setting(dialect, fields, expected):
    protocol, update, append = dialect
    errors = [f for f in frames(send(protocol, update(fields))) if f["type"] == "error"]

    assert errors == []
    assert start(protocol, append).options.kv == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kv_bits": 5}, "kv_bits must be one of 2, 3, 4, 8, got 5"),
        ({"kv_bits": 4, "kv_rotation": "x"}, "kv_rotation must be"),
        ({"kv_rotation": "iso"}, "kv_rotation needs kv_bits"),
        ({"kv_bits": "4"}, "kv_bits: Input should be a valid integer"),
    ],
)
def test_what_there_is_not(dialect, fields, message):
    """The error names the field; the session stays as it was."""
    protocol, update, append = dialect
    send(protocol, update({"kv_bits": 4}))
    (error,) = frames(send(protocol, update(fields)))

    assert error["type"] == "error" and message in json.dumps(error)
    assert start(protocol, append).options.kv == KVCacheConfig(4)


def test_a_session_with_four_bits(server, pipeline):
    """Over the wire: the text of a session alone with the same setting."""
    audio = pcm16(noise(2, seed=21))
    alone = pipeline.stream(kv_bits=4)
    alone.feed((np.frombuffer(audio, "<i2") / 32768).astype(np.float32))
    alone.close()
    while not alone.done:
        alone.step()
    with connect(f"{server.ws}/v1/realtime") as ws:
        ws.recv()
        ws.send(json.dumps({"type": "session.update", "model": "tiny", "kv_bits": 4}))
        ws.send(json.dumps({"type": "input_audio_buffer.append", "audio": b64(audio)}))
        ws.send(json.dumps({"type": "input_audio_buffer.commit", "final": True}))
        while (frame := json.loads(ws.recv(timeout=60)))["type"] == "transcription.delta":
            pass

    assert frame["type"] == "transcription.done"
    assert frame["text"] == alone.result().text != ""
