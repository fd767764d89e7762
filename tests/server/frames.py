"""Helpers for tests of dialects: frames in, frames out, and news that an engine would bring."""

from __future__ import annotations

import base64
import json

import numpy as np

from voxmlx.engine.request import Piece, Update
from voxmlx.server.protocols.common import Feed, Protocol, Send, ServedModel
from voxmlx.types import Segment, Transcription, Word

MODEL = ServedModel("tiny", aliases=("whisper-1",), delay_ms=480)


def pcm(n: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).integers(-9000, 9000, n, dtype="<i2").tobytes()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def send(protocol: Protocol, frame: dict | str | bytes) -> list:
    if isinstance(frame, dict):
        frame = json.dumps(frame)
    return protocol.receive(frame)


def frames(actions: list) -> list[dict]:
    """Frames as the client gets them: through JSON."""
    return [json.loads(json.dumps(action.frame)) for action in actions if isinstance(action, Send)]


def kinds(actions: list) -> list[str]:
    """Names of actions, frames by their type."""
    return [a.frame["type"] if isinstance(a, Send) else type(a).__name__ for a in actions]


def samples(actions: list) -> np.ndarray:
    parts = [action.samples for action in actions if isinstance(action, Feed)]
    return np.concatenate([np.zeros(0, np.float32), *parts])


WORDS = (Word("Hello", 0.1, 0.5, 0.9), Word("world.", 0.6, 1.0, 0.8))
SEGMENT = Segment("Hello world.", 0.1, 1.0, WORDS)


def news() -> list[Update]:
    """What the engine tells about one second of speech."""
    result = Transcription("Hello world.", [32] * 12, [SEGMENT], list(WORDS), 1.0, 480)
    return [
        Update(text="Hello", pieces=(Piece(b" Hello", -0.1),)),
        Update(text=" world.", words=WORDS[:1], pieces=(Piece(b" world.", -0.2),)),
        Update(words=WORDS[1:], segments=(SEGMENT,)),
        Update(result=result),
    ]
