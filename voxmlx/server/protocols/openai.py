"""OpenAI's realtime transcription sessions: items, turns, and what a session is set to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from voxmlx.engine.request import EngineFullError, Piece, Update
from voxmlx.server.pcm import PcmDecoder, PcmError, Samples, from_base64
from voxmlx.server.protocols.common import (
    Action,
    Cancel,
    ClientError,
    Dialect,
    Feed,
    Finish,
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
from voxmlx.server.protocols.openai_frames import (
    DELAYS_MS,
    Append,
    Input,
    SessionUpdate,
    Transcription,
    TurnDetection,
)
from voxmlx.server.vad import EnergyVad, Speech, SpeechStarted

PCM_RATE = 24_000
"""Rate of ``audio/pcm`` unless a client says another one (OpenAI's only one)."""
G711_RATE = 8_000
LOGPROBS = "item.input_audio_transcription.logprobs"
_ENCODINGS = {"audio/pcm": "pcm_s16le", "audio/pcmu": "pcm_mulaw", "audio/pcma": "pcm_alaw"}
_TRANSCRIPTION = "conversation.item.input_audio_transcription."


class OpenAiProtocol(Dialect):
    """One connection.

    Args:
        model: What is served.
        query: Parameters of the address.
    """

    dialect = "openai"

    def __init__(self, model: ServedModel, query: Mapping[str, str]):
        super().__init__(model, query)
        self._session_id = new_id("sess")
        self._format = "audio/pcm"
        self._sample_rate = PCM_RATE
        self._decoder = PcmDecoder(_ENCODINGS[self._format])
        self._transcription = Transcription()
        self._turn_detection: TurnDetection | None = None
        self._logprobs = False
        self._vad: EnergyVad | None = None
        self._previous: str | None = None
        self._items: dict[str, _Item] = {}

    def greet(self) -> list[Action]:
        """The session as it is set."""
        return [self._event("session.created", session=self._session())]

    def handle(self, event: dict[str, Any]) -> list[Action]:
        """Obey one frame."""
        kind = event["type"]
        if kind == "session.update":
            return self._update(parse_frame(SessionUpdate, event))
        if kind == "input_audio_buffer.append":
            return self._append(parse_frame(Append, event))
        if kind == "input_audio_buffer.commit":
            return self._commit()
        if kind == "input_audio_buffer.clear":
            return self._clear()
        raise ClientError(
            "unknown_event", f"unknown event {kind[:100]!r}; this server only transcribes", "type"
        )

    def error(self, error: ClientError, event_id: str | None = None) -> Send:
        """An ``error`` event that names the client's one."""
        details = {
            "type": "invalid_request_error",
            "code": error.code,
            "message": str(error),
            "param": error.param,
            "event_id": event_id,
        }
        return self._event("error", error=details)

    def news(self, turn: str, update: Update) -> list[Action]:
        """Deltas, segments and the end of an item."""
        item = self._items.get(turn)
        if item is None:
            return []
        actions: list[Action] = []
        if update.text or update.words:
            actions += self._add_item(item)
            actions.append(self._delta(item, update))
        for segment in update.segments:
            fields = {**segment_dict(segment), "id": f"seg_{item.n_segments}", "speaker": ""}
            item.n_segments += 1
            actions.append(self._of(item, "segment", **fields))
        if update.last:
            del self._items[turn]
            actions += self._add_item(item)
            actions += self._end(item, update)
        return actions

    def _end(self, item: _Item, update: Update) -> list[Action]:
        if update.error is not None:
            full = isinstance(update.error, EngineFullError)
            error = {
                "type": "server_error",
                "code": "overloaded" if full else "transcription_failed",
                "message": str(update.error),
                "param": None,
            }
            return [self._of(item, "failed", error=error)]
        result = update.result
        if result is None:
            return []
        text = "".join(item.texts)
        n_in, n_out = token_usage(result.duration_s, len(result.tokens))
        usage = {
            "type": "tokens",
            "input_tokens": n_in,
            "output_tokens": n_out,
            "total_tokens": n_in + n_out,
            "input_token_details": {"audio_tokens": n_in, "text_tokens": 0},
        }
        fields: dict[str, Any] = {"transcript": text, "usage": usage}
        fields["words"] = [word_dict(word) for word in result.words]
        fields["duration"] = round(result.duration_s, 3)
        if self._logprobs:
            fields["logprobs"] = [logprob_dict(piece) for piece in item.pieces]
        done = self._item_event("conversation.item.done", item, "completed", text)
        return [self._of(item, "completed", **fields), done]

    def _delta(self, item: _Item, update: Update) -> Send:
        item.texts.append(update.text)
        fields: dict[str, Any] = {"delta": update.text, "audio_s": round(update.heard_s, 3)}
        if update.words:
            fields["words"] = [word_dict(word) for word in update.words]
        if self._logprobs:
            item.pieces += update.pieces
            fields["logprobs"] = [logprob_dict(piece) for piece in update.pieces]
        return self._of(item, "delta", **fields)

    def _update(self, update: SessionUpdate) -> list[Action]:
        session = update.session
        if session.type == "realtime":
            raise ClientError(
                "invalid_value", "this server only has transcription sessions", "session.type"
            )
        given = Input() if session.audio is None else session.audio.input or Input()
        sets = given.model_fields_set
        detection = given.turn_detection if "turn_detection" in sets else self._turn_detection
        if detection is not None and detection.type != "server_vad":
            where = "session.audio.input.turn_detection.type"
            raise ClientError("invalid_value", "only server_vad or null is supported", where)
        transcription = given.transcription or self._transcription
        delay_ms = self._delay_of(transcription)
        kv = check_kv(transcription, "session.audio.input.transcription.")
        if given.format is not None:
            self._set_format(given.format.type, given.format.rate)
        languages = [transcription.language, *(transcription.languages or ())]
        language = next((name for name in languages if name is not None), None)
        self._transcription, self._language = transcription, None
        self.set_session(delay_ms, language, kv)
        if session.include is not None:
            self._logprobs = LOGPROBS in session.include
        actions: list[Action] = []
        if detection != self._turn_detection:
            actions += self._commit() if self._turn is not None else []
            self._turn_detection = detection
            self._make_vad()
        return [*actions, self._event("session.updated", session=self._session())]

    def _delay_of(self, transcription: Transcription) -> int | None:
        where = "session.audio.input.transcription.delay"
        delay = transcription.delay
        if transcription.delay_ms is not None:
            return check_delay(transcription.delay_ms, where + "_ms")
        if delay is None:
            return self._delay_ms
        return check_delay(DELAYS_MS[delay] if isinstance(delay, str) else delay, where)

    def _set_format(self, kind: str, rate: int | None) -> None:
        usual = PCM_RATE if kind == "audio/pcm" else G711_RATE
        rate = check_rate(usual if rate is None else rate, "session.audio.input.format.rate")
        if (kind, rate) == (self._format, self._sample_rate):
            return
        if self._turn is not None:
            raise ClientError(
                "invalid_value", "commit the audio before changing its format", "session.audio"
            )
        self._format, self._sample_rate = kind, rate
        self._decoder = PcmDecoder(_ENCODINGS[kind])
        self._make_vad()

    def _make_vad(self) -> None:
        detection = self._turn_detection
        self._vad = None
        if detection is not None:
            self._vad = EnergyVad(
                self._sample_rate,
                detection.threshold,
                detection.prefix_padding_ms,
                detection.silence_duration_ms,
            )

    def _append(self, append: Append) -> list[Action]:
        try:
            samples = self._decoder.decode(from_base64(append.audio))
        except PcmError as error:
            raise ClientError("invalid_audio", str(error), "audio") from None
        if not len(samples):
            return []
        if self._vad is None:
            return self._feed(samples)
        actions: list[Action] = []
        for event in self._vad.feed(samples):
            if isinstance(event, Speech):
                actions += self._feed(event.samples)
            elif isinstance(event, SpeechStarted):
                actions += self._open()
                fields = {"audio_start_ms": event.at_ms, "item_id": self._turn}
                actions.append(self._event("input_audio_buffer.speech_started", **fields))
            else:
                fields = {"audio_end_ms": event.at_ms, "item_id": self._turn}
                actions.append(self._event("input_audio_buffer.speech_stopped", **fields))
                actions += self._finish()
        return actions

    def _feed(self, samples: Samples) -> list[Action]:
        actions = self._open()
        actions.append(Feed(self._turn or "", samples, self._sample_rate))
        return actions

    def _open(self) -> list[Action]:
        if self._turn is not None:
            return []
        options = self.turn_options(self._transcription.keywords or ())
        self._turn = new_id("item")
        self._items[self._turn] = _Item(self._turn)
        return [Start(self._turn, options)]

    def _commit(self) -> list[Action]:
        actions: list[Action] = []
        if self._vad is not None:
            rest = self._vad.stop()
            if len(rest):
                actions += self._feed(rest)
        if self._turn is None:
            raise ClientError("input_audio_buffer_commit_empty", "the audio buffer is empty")
        return actions + self._finish()

    def _finish(self) -> list[Action]:
        """Close the open turn and tell the client its place in the conversation."""
        turn, self._turn = self._turn, None
        if turn is None:
            return []
        self._decoder.clear()
        item = self._items[turn]
        fields = {"item_id": turn, "previous_item_id": self._before(item)}
        committed = self._event("input_audio_buffer.committed", **fields)
        return [committed, *self._add_item(item), Finish(turn)]

    def _clear(self) -> list[Action]:
        turn, self._turn = self._turn, None
        self._decoder.clear()
        self._make_vad()
        actions: list[Action] = []
        if turn is not None:
            self._items.pop(turn, None)
            actions.append(Cancel(turn))
        return [*actions, self._event("input_audio_buffer.cleared")]

    def _before(self, item: _Item) -> str | None:
        """The item before ``item``; fixed the first time it is asked for."""
        if not item.placed:
            item.placed, item.previous = True, self._previous
            self._previous = item.id
        return item.previous

    def _add_item(self, item: _Item) -> list[Action]:
        if item.added:
            return []
        item.added = True
        return [self._item_event("conversation.item.added", item, "in_progress", None)]

    def _item_event(self, kind: str, item: _Item, status: str, text: str | None) -> Send:
        value = {
            "id": item.id,
            "object": "realtime.item",
            "type": "message",
            "role": "user",
            "status": status,
            "content": [{"type": "input_audio", "transcript": text}],
        }
        return self._event(kind, item=value, previous_item_id=self._before(item))

    def _of(self, item: _Item, kind: str, **fields: Any) -> Send:
        return self._event(_TRANSCRIPTION + kind, item_id=item.id, content_index=0, **fields)

    def _event(self, kind: str, **fields: Any) -> Send:
        return Send({"type": kind, "event_id": new_id("event"), **fields})

    def _session(self) -> dict[str, Any]:
        settings = self._transcription
        audio_format: dict[str, Any] = {"type": self._format}
        if self._format == "audio/pcm":
            audio_format["rate"] = self._sample_rate
        transcription = {
            "model": self._model.name if settings.model is None else settings.model,
            "language": settings.language,
            "prompt": settings.prompt,
            "delay": settings.delay if isinstance(settings.delay, str) else None,
            "delay_ms": self.shown_delay_ms,
        }
        detection = self._turn_detection
        return {
            "id": self._session_id,
            "object": "realtime.transcription_session",
            "type": "transcription",
            "audio": {
                "input": {
                    "format": audio_format,
                    "noise_reduction": None,
                    "transcription": transcription,
                    "turn_detection": None if detection is None else detection.model_dump(),
                }
            },
            "include": [LOGPROBS] if self._logprobs else None,
        }


class _Item:
    """A stretch of audio that becomes one message of the conversation."""

    def __init__(self, item_id: str):
        self.id = item_id
        self.placed = False
        self.previous: str | None = None
        self.added = False
        self.n_segments = 0
        self.texts: list[str] = []
        self.pieces: list[Piece] = []


def logprob_dict(piece: Piece) -> dict[str, Any]:
    """A token with its log-probability as OpenAI writes it."""
    return {
        "token": piece.token.decode("utf-8", "replace"),
        "bytes": list(piece.token),
        "logprob": round(piece.logprob, 6),
    }
