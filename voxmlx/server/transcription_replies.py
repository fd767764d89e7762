"""A finished transcription in each of OpenAI's answer formats."""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Sequence
from typing import Any

from starlette.responses import JSONResponse, PlainTextResponse, Response

from voxmlx.engine.request import Piece, Update
from voxmlx.server.protocols.common import segment_dict, token_usage, word_dict
from voxmlx.server.protocols.openai import logprob_dict
from voxmlx.server.transcription_form import TranscriptionForm
from voxmlx.types import Segment, Transcription
from voxmlx.writers import get_writer

_MEDIA_TYPES = {"srt": "application/x-subrip", "vtt": "text/vtt"}


def reply(result: Transcription, form: TranscriptionForm, pieces: Sequence[Piece]) -> Response:
    """The answer in the format that the form asks for."""
    kind = form.response_format
    if kind == "text":
        return PlainTextResponse(result.text + "\n")
    if kind in _MEDIA_TYPES:
        file = io.StringIO()
        get_writer(kind)(result, file)
        return Response(file.getvalue(), media_type=_MEDIA_TYPES[kind])
    if kind == "verbose_json":
        return JSONResponse(_verbose(result, form))
    body: dict[str, Any] = {"text": result.text, "usage": _usage(result)}
    if form.logprobs:
        body["logprobs"] = [logprob_dict(piece) for piece in pieces]
    return JSONResponse(body)


def delta_event(update: Update, logprobs: bool) -> dict[str, Any]:
    """A ``transcript.text.delta``, with the words and segments that are complete by now."""
    frame: dict[str, Any] = {"type": "transcript.text.delta", "delta": update.text}
    if update.words:
        frame["words"] = [word_dict(word) for word in update.words]
    if update.segments:
        frame["segments"] = [segment_dict(segment) for segment in update.segments]
    if logprobs:
        frame["logprobs"] = [logprob_dict(piece) for piece in update.pieces]
    return frame


def done_event(result: Transcription, pieces: Sequence[Piece], logprobs: bool) -> dict[str, Any]:
    """The ``transcript.text.done``, with words and segments as further fields."""
    frame: dict[str, Any] = {
        "type": "transcript.text.done",
        "text": result.text,
        "usage": _usage(result),
        "words": [word_dict(word) for word in result.words],
        "segments": [segment_dict(segment) for segment in result.segments],
    }
    if logprobs:
        frame["logprobs"] = [logprob_dict(piece) for piece in pieces]
    return frame


def _usage(result: Transcription) -> dict[str, Any]:
    n_in, n_out = token_usage(result.duration_s, len(result.tokens))
    return {
        "type": "tokens",
        "input_tokens": n_in,
        "output_tokens": n_out,
        "total_tokens": n_in + n_out,
        "input_token_details": {"audio_tokens": n_in, "text_tokens": 0},
    }


def _verbose(result: Transcription, form: TranscriptionForm) -> dict[str, Any]:
    body: dict[str, Any] = {
        "task": "transcribe",
        "language": result.language or "",
        "duration": round(result.duration_s, 3),
        "text": result.text,
        "usage": {"type": "duration", "seconds": math.ceil(result.duration_s)},
    }
    if "segment" in form.granularities:
        temperature = form.options.temperature
        body["segments"] = [
            _segment(i, segment, temperature) for i, segment in enumerate(result.segments)
        ]
    if "word" in form.granularities:
        body["words"] = [word_dict(word) for word in result.words]
    return body


def _segment(i: int, segment: Segment, temperature: float) -> dict[str, Any]:
    """A segment with Whisper's statistics, as far as they mean something here."""
    text = segment.text.encode()
    confidences = [word.confidence for word in segment.words if word.confidence is not None]
    logprobs = [math.log(max(confidence, 1e-6)) for confidence in confidences]
    return {
        "id": i,
        "seek": 0,
        "start": round(segment.start_s, 3),
        "end": round(segment.end_s, 3),
        "text": segment.text,
        "tokens": [],
        "temperature": temperature,
        "avg_logprob": round(sum(logprobs) / max(1, len(logprobs)), 4),
        "compression_ratio": round(len(text) / max(1, len(zlib.compress(text))), 4),
        "no_speech_prob": 0.0,
    }
