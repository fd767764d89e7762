"""Mistral's realtime transcription, as its SDK 3.7 speaks it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from voxmlx.engine.request import EngineFullError, Update
from voxmlx.server.pcm import ENCODINGS, PcmDecoder, PcmError, from_base64
from voxmlx.server.protocols.common import (
    Action,
    ClientError,
    ClientFrame,
    Close,
    Dialect,
    Feed,
    Finish,
    Flush,
    KVFields,
    Send,
    ServedModel,
    Start,
    check_delay,
    check_kv,
    check_rate,
    new_id,
    parse_frame,
    segment_dict,
    token_usage,
    word_dict,
)

MAX_APPEND_BYTES = 262_144
"""Bytes of audio in one append (Mistral's limit)."""
_STATUS = {"processing_error": 500, "overloaded": 503}


class AudioFormat(ClientFrame):
    """``session.audio_format``."""

    encoding: Literal["pcm_s16le", "pcm_s32le", "pcm_f16le", "pcm_f32le", "pcm_mulaw", "pcm_alaw"]
    sample_rate: int


class Session(KVFields):
    """``session``; diarisation and turn detection are not done and echoed as off."""

    audio_format: AudioFormat | None = None
    target_streaming_delay_ms: int | None = None
    context_bias: list[str] | None = None
    language: str | None = None


class SessionUpdate(ClientFrame):
    """``session.update``."""

    type: Literal["session.update"]
    session: Session


class Append(ClientFrame):
    """``input_audio.append``."""

    type: Literal["input_audio.append"]
    audio: str


class MistralProtocol(Dialect):
    """One connection: one transcription.

    Args:
        model: What is served.
        query: Parameters of the address.

    Raises:
        ClientError: If a parameter is wrong.
    """

    dialect = "mistral"

    def __init__(self, model: ServedModel, query: Mapping[str, str]):
        super().__init__(model, query)
        self._request_id = new_id("req")
        self._format = AudioFormat(encoding=ENCODINGS[0], sample_rate=16_000)  # type: ignore[arg-type]
        self._decoder = PcmDecoder(self._format.encoding)
        self._context_bias: list[str] = []
        self._ended = False
        self._texts: list[str] = []

    def greet(self) -> list[Action]:
        """The session as it is set."""
        return [Send({"type": "session.created", "session": self._session()})]

    def handle(self, event: dict[str, Any]) -> list[Action]:
        """Obey one frame."""
        kind = event["type"]
        if kind == "session.update":
            return self._update(parse_frame(SessionUpdate, event).session)
        if self._ended and kind in ("input_audio.append", "input_audio.flush", "input_audio.end"):
            raise ClientError("invalid_event", "the audio has ended", "type")
        if kind == "input_audio.append":
            return self._append(parse_frame(Append, event))
        if kind == "input_audio.flush":
            return [] if self._turn is None else [Flush(self._turn)]
        if kind == "input_audio.end":
            self._ended = True
            return [*self._open(), Finish(self._turn or "")]
        raise ClientError("unknown_event", f"unknown event {kind[:100]!r}", "type")

    def error(self, error: ClientError, event_id: str | None = None) -> Send:
        """``code`` is a number in this dialect."""
        detail = {"message": str(error), "code": _STATUS.get(error.code, 400)}
        return Send({"type": "error", "error": detail})

    def news(self, turn: str, update: Update) -> list[Action]:
        """Deltas, segments and the end."""
        actions: list[Action] = []
        if update.text or update.words:
            self._texts.append(update.text)
            delta: dict[str, Any] = {"type": "transcription.text.delta", "text": update.text}
            delta["audio_s"] = round(update.heard_s, 3)
            if update.words:
                delta["words"] = [word_dict(word) for word in update.words]
            actions.append(Send(delta))
        for segment in update.segments:
            actions.append(
                Send({"type": "transcription.segment", **segment_dict(segment), "speaker_id": None})
            )
        if update.error is not None:
            code = "overloaded" if isinstance(update.error, EngineFullError) else "processing_error"
            actions += [self.error(ClientError(code, str(update.error))), Close(1011)]
        elif update.result is not None:
            result = update.result
            n_in, n_out = token_usage(result.duration_s, len(result.tokens))
            usage = {
                "prompt_tokens": n_in,
                "completion_tokens": n_out,
                "total_tokens": n_in + n_out,
                "prompt_audio_seconds": round(result.duration_s),
            }
            done = {
                "type": "transcription.done",
                "model": self._model.name,
                "text": "".join(self._texts),
                "usage": usage,
                "language": self._language,
                "segments": [
                    {"type": "transcription_segment", **segment_dict(segment)}
                    for segment in result.segments
                ],
            }
            actions += [Send(done), Close()]
        return actions

    def _update(self, session: Session) -> list[Action]:
        if self._turn is not None or self._ended:
            raise ClientError("invalid_event", "session.update must come before the audio")
        where = "session.target_streaming_delay_ms"
        delay_ms = check_delay(session.target_streaming_delay_ms, where)
        kv = check_kv(session, "session.")
        if session.audio_format is not None:
            check_rate(session.audio_format.sample_rate, "session.audio_format.sample_rate")
            self._format = session.audio_format
            self._decoder = PcmDecoder(self._format.encoding)
        self.set_session(delay_ms, session.language, kv)
        if session.context_bias is not None:
            self._context_bias = session.context_bias[:1000]
        return [Send({"type": "session.updated", "session": self._session()})]

    def _append(self, append: Append) -> list[Action]:
        if len(append.audio) > (MAX_APPEND_BYTES + 2) // 3 * 4:
            raise ClientError("invalid_audio", f"audio must be at most {MAX_APPEND_BYTES} bytes")
        try:
            samples = self._decoder.decode(from_base64(append.audio))
        except PcmError as error:
            raise ClientError("invalid_audio", str(error), "audio") from None
        if not len(samples):
            return []
        return [*self._open(), Feed(self._turn or "", samples, self._format.sample_rate)]

    def _open(self) -> list[Action]:
        if self._turn is not None:
            return []
        self._turn = new_id("turn")
        return [Start(self._turn, self.turn_options(self._context_bias))]

    def _session(self) -> dict[str, Any]:
        return {
            "request_id": self._request_id,
            "model": self._model.name,
            "audio_format": self._format.model_dump(),
            "target_streaming_delay_ms": self.shown_delay_ms,
            "diarize": False,
            "context_bias": self._context_bias,
            "language": self._language,
        }
