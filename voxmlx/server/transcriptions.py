"""``POST /v1/audio/transcriptions``: a recording in, its text out, at once or as it comes."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Coroutine
from tempfile import SpooledTemporaryFile
from typing import IO, Any, TypeVar

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from voxmlx.engine.request import Piece
from voxmlx.server.context import client_of, context_of
from voxmlx.server.errors import ApiError, error_body
from voxmlx.server.file_job import FileJob
from voxmlx.server.logs import event
from voxmlx.server.transcription_form import TranscriptionForm, read_form
from voxmlx.server.transcription_replies import delta_event, done_event, reply
from voxmlx.types import Transcription

MAX_FIELDS = 2000
"""Fields of a form at most: a thousand keywords and the rest."""
UPLOAD_TIMEOUT_S = 900.0
"""How long an upload may take."""

T = TypeVar("T")
_logger = logging.getLogger(__name__)


class Transcriptions:
    """The endpoint, as an ASGI application: it holds its place until the answer is sent."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        context = context_of(request)
        client = client_of(request)
        started_s = time.monotonic()
        status, audio_s = 200, 0.0
        try:
            with context.uploads.take(client):
                form = await _parse(request)
                try:
                    fields = read_form(form, context.model)
                    file = _on_disk(fields.file.file)
                    async with FileJob(context, file, fields.options) as job:
                        await _answer(request, send, job, fields)
                        audio_s = job.audio_s
                finally:
                    await form.close()
        except ApiError as error:
            status = error.status_code
            context.metrics.refused.labels(error.code).inc()
            raise
        except ClientDisconnect:
            status = 499
        finally:
            seconds = time.monotonic() - started_s
            context.metrics.request.observe(seconds)
            event(
                _logger,
                "transcription",
                client=client,
                status=status,
                seconds=round(seconds, 3),
                audio_s=round(audio_s, 2),
            )


async def _parse(request: Request) -> FormData:
    """Read the form; files go to disk."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise ApiError(415, "invalid_request", "send the file as multipart/form-data")
    try:
        parsing = request.form(max_files=1, max_fields=MAX_FIELDS)
        return await asyncio.wait_for(parsing, UPLOAD_TIMEOUT_S)
    except asyncio.TimeoutError:
        raise ApiError(408, "timeout", "the upload took too long") from None
    except ApiError:
        raise
    except HTTPException as error:
        raise ApiError(400, "invalid_request", str(error.detail)) from None


def _on_disk(file: IO[bytes]) -> IO[bytes]:
    """Put an upload on disk, where another process can read it by its descriptor."""
    if isinstance(file, SpooledTemporaryFile):
        file.rollover()
    file.flush()
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    return file


async def _answer(request: Request, send: Send, job: FileJob, form: TranscriptionForm) -> None:
    if form.stream:
        body = _events(job, form.logprobs)
        response: Response = StreamingResponse(body, media_type="text/event-stream")
        response.headers["cache-control"] = "no-store"
    else:
        result, pieces = await _unless_disconnected(request, _collect(job))
        response = reply(result, form, pieces)
    await response(request.scope, request.receive, send)


async def _collect(job: FileJob) -> tuple[Transcription, list[Piece]]:
    pieces: list[Piece] = []
    async for update in job.updates():
        pieces += update.pieces
        if update.result is not None:
            return update.result, pieces
    raise RuntimeError("the news ended without a result")


async def _events(job: FileJob, logprobs: bool) -> AsyncIterator[str]:
    """Server-sent events."""
    pieces: list[Piece] = []
    try:
        async for update in job.updates():
            pieces += update.pieces
            if update.text or update.words or update.segments:
                yield _sse(delta_event(update, logprobs))
            if update.result is not None:
                yield _sse(done_event(update.result, pieces, logprobs))
    except ApiError as error:  # the status is sent already
        body = error_body(error.status_code, error.code, str(error.detail), error.param)
        yield _sse({"type": "error", **body})


def _sse(frame: dict[str, Any]) -> str:
    return f"data: {json.dumps(frame)}\n\n"


async def _unless_disconnected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do something and drop it if the client goes away.

    Raises:
        ClientDisconnect: If it did.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
