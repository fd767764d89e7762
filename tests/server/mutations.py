"""Malformed frames and requests without end, from a seed."""

from __future__ import annotations

import base64
import copy
import json
import random
from collections.abc import Iterator
from typing import Any

_AUDIO = base64.b64encode(bytes(range(256)) * 5).decode()
FRAMES: list[dict[str, Any]] = [
    {"type": "session.update", "model": "tiny"},
    {"type": "session.update"},
    {
        "type": "session.update",
        "event_id": "e1",
        "session": {
            "type": "transcription",
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": 24000},
                    "noise_reduction": {"type": "near_field"},
                    "transcription": {"model": "tiny", "language": "en", "delay": "low"},
                    "turn_detection": {"type": "server_vad", "threshold": 0.5},
                }
            },
            "include": ["item.input_audio_transcription.logprobs"],
        },
    },
    {
        "type": "session.update",
        "session": {
            "audio_format": {"encoding": "pcm_f32le", "sample_rate": 16000},
            "target_streaming_delay_ms": 480,
            "context_bias": ["a"],
        },
    },
    {"type": "input_audio_buffer.append", "audio": _AUDIO},
    {"type": "input_audio_buffer.commit"},
    {"type": "input_audio_buffer.commit", "final": True},
    {"type": "input_audio_buffer.clear"},
    {"type": "input_audio.append", "audio": _AUDIO},
    {"type": "input_audio.flush"},
    {"type": "input_audio.end"},
    {"type": "response.create"},
    {"type": "conversation.item.create", "item": {}},
]
_VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 24000, 16001, 10**30, -(10**40), 1e308, 0.5, "", " ", "0", "é"),
    *("\x00", "\ud800", "null", "A" * 5000, "=" * 8, "AAAA", "audio/pcm", "pcm_s16le", "2400", []),
    *([[]], [None], {}, {"type": "server_vad"}, {"a": {"b": {}}}, ["x"] * 2000, 480, 2400, "high"),
    *(float("nan"), float("inf"), "session.update", "ＡＡＡＡ", "%s%n", "../../etc/passwd"),
]


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items if isinstance(value, (dict, list)) else ():
        if isinstance(inner, (dict, list)):
            yield from _places(inner, (*path, key))
        else:
            yield (*path, key)


def _mutated(rng: random.Random, frame: dict[str, Any]) -> Any:
    frame = copy.deepcopy(frame)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        path = rng.choice(list(_places(frame)) or [("type",)])
        parent: Any = frame
        for key in path[:-1]:
            parent = parent[key]
        action = rng.random()
        if action < 0.6:
            parent[path[-1]] = copy.deepcopy(rng.choice(_VALUES))
        elif action < 0.8 and isinstance(parent, dict):
            parent.pop(path[-1], None)
        elif isinstance(parent, dict):
            parent[str(rng.choice(_VALUES[:20]))[:20]] = copy.deepcopy(rng.choice(_VALUES))
        if not frame:
            break
    return frame


def frames(seed: int) -> Iterator[str | bytes]:
    """WebSocket messages: valid ones, mutated ones, cut or garbled text, and bytes."""
    rng = random.Random(seed)
    while True:
        frame = rng.choice(FRAMES)
        action = rng.random()
        if action < 0.15:
            yield json.dumps(frame)
            continue
        if action < 0.75:
            yield json.dumps(_mutated(rng, frame))
            continue
        text = json.dumps(frame)
        if action < 0.85:
            yield text[: rng.randrange(len(text))]
        elif action < 0.92:
            at = rng.randrange(len(text))
            yield text[:at] + chr(rng.choice((0, 34, 123, 0x2028, 0xFFFF, 233))) + text[at + 1 :]
        elif action < 0.96:
            yield rng.choice(("[" * 3000, "{}", "[]", "1", '"', "", "nul", "1e999", '{"type":1}'))
        else:
            yield rng.randbytes(rng.randrange(200))


_URLS = (
    *("/v1/audio/transcriptions", "/v1/models", "/v1/models/x", "/health", "/ready", "/metrics"),
    *("/openapi.json", "/", "/static/app.js", "/static/../run.py", "/v1/realtime", "/%00", "/é"),
)


def _form(rng: random.Random) -> tuple[bytes, bytes]:
    """Body and content type of an upload with something wrong."""
    boundary = rng.choice((b"x", b"-" * 69, b"b'()+_,-./:=?"))
    parts = []
    for _ in range(rng.randrange(4)):
        name = rng.choice((b"file", b"model", b"stream", b"delay_ms", b"temperature", b"\xff", b""))
        head = b'Content-Disposition: form-data; name="' + name + b'"'
        if rng.random() < 0.5:
            head += b'; filename="' + rng.choice((b"a.wav", b"../a", b"\x00", b"a" * 500)) + b'"'
        extra = rng.choice((b"", b"\r\nContent-Type: audio/wav", b"\r\nX: " + b"y" * 3000))
        value = rng.choice((b"", b"RIFF\x24\x00\x00\x00WAVE", rng.randbytes(100), b"480", b"tiny"))
        parts.append(b"--" + boundary + b"\r\n" + head + extra + b"\r\n\r\n" + value + b"\r\n")
    end = rng.choice((b"--" + boundary + b"--\r\n", b"", b"--"))
    kind = rng.choice((b"multipart/form-data; boundary=" + boundary, b"multipart/form-data"))
    return b"".join(parts) + end, kind


def requests(seed: int) -> Iterator[bytes]:
    """HTTP requests as bytes on the wire; each asks for the connection to be closed."""
    rng = random.Random(seed)
    while True:
        method = rng.choice((b"GET", b"POST", b"POST", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"X"))
        url = rng.choice(_URLS).encode("utf-8", "replace")
        if rng.random() < 0.7:
            url = b"/v1/audio/transcriptions"
        body, kind = _form(rng)
        length = rng.choice((len(body), len(body), len(body), 0, -1, 10**20, b"abc"))
        headers = [b"Host: localhost", b"Connection: close", b"Content-Type: " + kind]
        headers.append(b"Content-Length: " + str(length).encode().replace(b"b'abc'", b"abc"))
        if rng.random() < 0.15:
            headers.append(
                rng.choice((b"Transfer-Encoding: chunked", b"Host: x", b"\xff: 1", b"a"))
            )
        if rng.random() < 0.1:
            headers.append(b"Upgrade: websocket\r\nSec-WebSocket-Key: x")
        message = b" ".join((method, url, b"HTTP/1.1")) + b"\r\n" + b"\r\n".join(headers)
        message += b"\r\n\r\n" + body
        if rng.random() < 0.1:
            message = message[: rng.randrange(len(message))]
        elif rng.random() < 0.1:
            at = rng.randrange(len(message))
            message = message[:at] + rng.randbytes(2) + message[at + 2 :]
        yield message
