"""Client frames of OpenAI's realtime transcription sessions, as its SDK 3.54 types them.

Fields beside those are this server's own: any PCM rate, ``delay_ms``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from voxmlx.server.protocols.common import ClientFrame, KVFields

DELAYS_MS = {"minimal": 160, "low": 240, "medium": 480, "high": 960, "xhigh": 2400}
"""The words of ``transcription.delay`` as delays of the model."""


class Format(ClientFrame):
    """``audio/pcm`` (16 bit), ``audio/pcmu`` or ``audio/pcma``."""

    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"] = "audio/pcm"
    rate: int | None = None


class Transcription(KVFields):
    """Settings of the transcription; ``delay`` may also be milliseconds."""

    model: str | None = None
    language: str | None = None
    languages: list[str] | None = None
    prompt: str | None = None
    keywords: Annotated[list[str], Field(max_length=1000)] | None = None
    delay: Literal["minimal", "low", "medium", "high", "xhigh"] | int | None = None
    delay_ms: int | None = None


class TurnDetection(ClientFrame):
    """``server_vad``; there is no model of meaning behind ``semantic_vad`` here."""

    type: Literal["server_vad", "semantic_vad"]
    threshold: Annotated[float, Field(ge=0, le=1, strict=False)] = 0.5
    prefix_padding_ms: Annotated[int, Field(ge=0, le=5_000)] = 300
    silence_duration_ms: Annotated[int, Field(ge=20, le=30_000)] = 500


class Input(ClientFrame):
    """``session.audio.input``."""

    format: Format | None = None
    noise_reduction: dict[str, Any] | None = None
    transcription: Transcription | None = None
    turn_detection: TurnDetection | None = None


class Audio(ClientFrame):
    """``session.audio``."""

    input: Input | None = None


class Session(ClientFrame):
    """``session``."""

    type: Literal["transcription", "realtime"] = "transcription"
    audio: Audio | None = None
    include: list[str] | None = None


class SessionUpdate(ClientFrame):
    """``session.update``."""

    type: Literal["session.update"]
    session: Session


class Append(ClientFrame):
    """``input_audio_buffer.append``."""

    type: Literal["input_audio_buffer.append"]
    audio: str
