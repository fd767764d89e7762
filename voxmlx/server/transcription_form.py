"""The fields of a transcription request, as OpenAI names them, checked."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.datastructures import FormData, UploadFile

from voxmlx.engine.request import Kind, TurnOptions
from voxmlx.server.errors import ApiError
from voxmlx.server.protocols.common import ClientError, ServedModel, clean_keywords, query_delay

FORMATS = ("json", "text", "srt", "vtt", "verbose_json")
GRANULARITIES = ("word", "segment")
OPENAI_MODELS = ("whisper-1", "gpt-transcribe", "gpt-4o-transcribe", "gpt-4o-mini-transcribe")
"""Names that unchanged clients send; all of them mean the served model."""


@dataclass(frozen=True)
class TranscriptionForm:
    """A checked request.

    Attributes:
        file: The upload.
        options: How to transcribe it.
        response_format: One of :data:`FORMATS`.
        stream: Whether to answer with server-sent events.
        granularities: Which times ``verbose_json`` shall hold.
        logprobs: Whether to tell log-probabilities.
    """

    file: UploadFile
    options: TurnOptions
    response_format: str
    stream: bool
    granularities: tuple[str, ...]
    logprobs: bool


def read_form(form: FormData, model: ServedModel) -> TranscriptionForm:
    """Check a form.

    Raises:
        ApiError: Naming the first field at fault.
    """
    upload = form.get("file")
    if not isinstance(upload, UploadFile):
        raise _bad("file", "the form needs a 'file'")
    name = _text(form, "model")
    if name is not None and name not in OPENAI_MODELS and not model.answers_to(name):
        raise ApiError(404, "model_not_found", f"no model {name!r} here", "model")
    response_format = _text(form, "response_format") or "json"
    if response_format not in FORMATS:
        raise _bad("response_format", f"response_format must be one of {', '.join(FORMATS)}")
    stream = (_text(form, "stream") or "false").lower()
    if stream not in ("true", "false", "1", "0"):
        raise _bad("stream", "stream must be true or false")
    granularities = _many(form, "timestamp_granularities") or GRANULARITIES
    if not set(granularities) <= set(GRANULARITIES):
        raise _bad("timestamp_granularities", "timestamp_granularities are word and segment")
    return TranscriptionForm(
        upload,
        _options(form),
        response_format,
        stream in ("true", "1"),
        granularities,
        "logprobs" in _many(form, "include"),
    )


def _options(form: FormData) -> TurnOptions:
    delay = _text(form, "delay_ms")
    try:
        delay_ms = None if delay is None else query_delay({"delay_ms": delay})
    except ClientError as error:
        raise _bad("delay_ms", str(error)) from None
    temperature = _text(form, "temperature") or "0"
    try:
        degrees = float(temperature)
    except ValueError:
        degrees = -1.0
    if not 0 <= degrees <= 2:
        raise _bad("temperature", f"temperature must be 0 to 2, got {temperature!r}")
    language = _text(form, "language")
    return TurnOptions(
        delay_ms=delay_ms,
        temperature=degrees,
        language=None if language is None else language[:35],
        keywords=clean_keywords(_many(form, "keywords")),
        kind=Kind.FILE,
    )


def _text(form: FormData, name: str) -> str | None:
    value = form.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise _bad(name, f"{name} must be text")
    return value


def _many(form: FormData, name: str) -> tuple[str, ...]:
    """A list, whose name clients write with or without brackets."""
    values = [*form.getlist(name), *form.getlist(f"{name}[]")]
    return tuple(value for value in values if isinstance(value, str) and value)


def _bad(param: str, message: str) -> ApiError:
    return ApiError(400, "invalid_value", message, param)
