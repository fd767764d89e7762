"""Conversations as callers write them, dictionaries of texts and recordings, to messages.

The keys are those of OpenAI's and Hugging Face's chat formats. It knows neither ids nor the model.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from voxmlx.generation.chat_prompt import Clip, Message

MakeClip = Callable[[Any, int | None], Clip]
"""Reads a recording: its source and, for an array, its rate in Hz."""


def parse_messages(messages: Iterable[Mapping[str, Any]], make_clip: MakeClip) -> list[Message]:
    """Check messages and read their recordings.

    Args:
        messages: ``{"role": ..., "content": ...}``; the content is a text or a list of parts.
        make_clip: Reads a recording.

    Raises:
        AudioError: If a recording cannot be read.
        ValueError: If a message is of another form.
    """
    if isinstance(messages, str | Mapping) or not isinstance(messages, Iterable):
        raise ValueError(f"messages must be a list of dicts, got {messages!r:.80}")
    return [_message(message, make_clip) for message in messages]


def _message(message: Any, make_clip: MakeClip) -> Message:
    if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
        raise ValueError(f"a message must be a dict with 'role' and 'content', got {message!r:.80}")
    content = message["content"]
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list | tuple) or not content:
        raise ValueError(f"content must be a text or a list of parts, got {content!r:.80}")
    return Message(message["role"], tuple(_part(part, make_clip) for part in content))


def _part(part: Any, make_clip: MakeClip) -> str | Clip:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    if kind == "audio" and "audio" in part:
        return make_clip(part["audio"], part.get("sample_rate"))
    if kind == "audio" and "path" in part:
        return make_clip(part["path"], None)
    if kind == "input_audio":
        return make_clip(_decode_base64(part.get("input_audio")), None)
    raise ValueError(
        "a part must be {'type': 'text', 'text': ...} or {'type': 'audio', 'audio': ...}, "
        f"got {part!r:.80}"
    )


def _decode_base64(value: Any) -> bytes:
    """Sound of an ``input_audio`` part: base64 text, alone or as ``data`` of an object."""
    data: Any = value.get("data") if isinstance(value, Mapping) else value
    try:
        return base64.b64decode(data, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise ValueError(f"input_audio must hold base64 data, got {data!r:.40}") from error
