"""vLLM's realtime messages, and the bare ones of small servers that came from them.

Both carry base64 of 16-bit PCM at 16 kHz. In vLLM's dialect a first commit starts a transcription
and a commit with ``final`` ends it. The bare dialect is what the client of the Jetson server speaks
(``session.update`` with nothing, appends, one commit without fields) and what old vLLM clients do
without any ``session.update``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from voxmlx.engine.request import Update
from voxmlx.server.pcm import PcmDecoder, PcmError, from_base64
from voxmlx.server.protocols.common import (
    Action,
    Cancel,
    ClientError,
    ClientFrame,
    Dialect,
    Feed,
    Finish,
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

SAMPLE_RATE = 16_000


class SessionUpdate(KVFields):
    """``session.update``; the delay, the rate and the phrases are this server's own fields, too."""

    type: Literal["session.update"]
    model: str | None = None
    language: str | None = None
    delay_ms: int | None = None
    sample_rate: int | None = None
    keywords: Annotated[list[str], Field(max_length=1000)] | None = None


class Append(ClientFrame):
    """``input_audio_buffer.append``."""

    type: Literal["input_audio_buffer.append"]
    audio: str


class Commit(ClientFrame):
    """``input_audio_buffer.commit``."""

    type: Literal["input_audio_buffer.commit"]
    final: bool = False


class VllmProtocol(Dialect):
    """One connection.

    Args:
        model: What is served.
        query: Parameters of the address.
        bare: Speak the bare dialect: no model has to be named, and every commit ends a turn.
    """

    def __init__(self, model: ServedModel, query: Mapping[str, str], bare: bool = False):
        self.dialect = "bare" if bare else "vllm"
        super().__init__(model, query)
        self._bare = bare
        self._validated = bare
        self._keywords: list[str] = []
        self._sample_rate = SAMPLE_RATE
        self._decoder = PcmDecoder("pcm_s16le")
        self._started = False
        self._texts: dict[str, list[str]] = {}

    def greet(self) -> list[Action]:
        """The session's name."""
        session = new_id("sess")
        return [Send({"type": "session.created", "id": session, "created": int(time.time())})]

    def handle(self, event: dict[str, Any]) -> list[Action]:
        """Obey one frame."""
        kind = event["type"]
        if kind == "session.update":
            return self._update(parse_frame(SessionUpdate, event))
        if kind == "input_audio_buffer.append":
            return self._append(parse_frame(Append, event))
        if kind == "input_audio_buffer.commit":
            return self._commit(parse_frame(Commit, event).final)
        if kind == "input_audio_buffer.clear":
            return self._clear()
        raise ClientError("unknown_event", f"unknown event {kind[:100]!r}", "type")

    def error(self, error: ClientError, event_id: str | None = None) -> Send:
        """``error`` is a plain string in this dialect."""
        return Send({"type": "error", "error": str(error), "code": error.code})

    def news(self, turn: str, update: Update) -> list[Action]:
        """Deltas and the end of a turn."""
        actions: list[Action] = []
        if update.text or update.words:
            delta: dict[str, Any] = {"type": "transcription.delta", "delta": update.text}
            delta["audio_s"] = round(update.heard_s, 3)
            if update.words:
                delta["words"] = [word_dict(word) for word in update.words]
            actions.append(Send(delta))
            self._texts.setdefault(turn, []).append(update.text)
        if update.error is not None:
            self._texts.pop(turn, None)
            actions.append(self.error(ClientError("processing_error", str(update.error))))
        elif update.result is not None:
            result = update.result
            text = "".join(self._texts.pop(turn, []))
            n_in, n_out = token_usage(result.duration_s, len(result.tokens))
            usage = {
                "prompt_tokens": n_in,
                "completion_tokens": n_out,
                "total_tokens": n_in + n_out,
                "audio_duration_s": round(result.duration_s, 3),
            }
            segments = [segment_dict(segment) for segment in result.segments]
            done = {"type": "transcription.done", "text": text, "usage": usage}
            actions.append(Send({**done, "segments": segments}))
        return actions

    def _update(self, update: SessionUpdate) -> list[Action]:
        if not self._bare:
            if update.model is None:
                raise ClientError("invalid_event", "session.update needs a 'model'", "model")
            if not self._model.answers_to(update.model):
                raise ClientError("model_not_found", f"no model {update.model!r} here", "model")
        delay_ms, kv = check_delay(update.delay_ms, "delay_ms"), check_kv(update)
        if update.sample_rate is not None:
            if self._turn is not None:
                raise ClientError("invalid_event", "audio has started", "sample_rate")
            self._sample_rate = check_rate(update.sample_rate, "sample_rate")
        self.set_session(delay_ms, update.language, kv)
        if update.keywords is not None:
            self._keywords = update.keywords
        self._validated = True
        return []

    def _append(self, append: Append) -> list[Action]:
        try:
            data = from_base64(append.audio)
        except PcmError as error:
            raise ClientError("invalid_audio", str(error), "audio") from None
        if not data:
            raise ClientError("invalid_audio", "audio is empty", "audio")
        actions = self._open()
        samples = self._decoder.decode(data)
        if len(samples):
            actions.append(Feed(self._turn or "", samples, self._sample_rate))
        return actions

    def _open(self) -> list[Action]:
        if self._turn is not None:
            return []
        self._turn = new_id("turn")
        return [Start(self._turn, self.turn_options(self._keywords))]

    def _commit(self, final: bool) -> list[Action]:
        if not self._validated:
            raise ClientError(
                "model_not_validated", "name a model with session.update before a commit"
            )
        if not self._bare and not final:
            self._started = True
            return []
        if self._turn is None and not final and not self._started:
            return []  # a bare commit before any audio only says that audio will come
        actions = self._open()
        actions.append(Finish(self._turn or ""))
        self._decoder.clear()
        self._turn, self._started = None, False
        return actions

    def _clear(self) -> list[Action]:
        turn, self._turn = self._turn, None
        self._decoder.clear()
        return [] if turn is None else [Cancel(turn)]
