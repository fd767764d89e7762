"""One upload on its way through the engine. Knows no HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import IO

from voxmlx.engine.request import (
    BadTurnError,
    EngineFullError,
    EngineStoppedError,
    TurnOptions,
    Update,
)
from voxmlx.errors import AudioError, VoxmlxError
from voxmlx.server.context import Context
from voxmlx.server.decoding import SAMPLE_RATE, decode_upload
from voxmlx.server.errors import ApiError
from voxmlx.server.pcm import Samples


class FileJob:
    """Decode a file and transcribe it; an async context manager.

    Args:
        context: The server.
        file: The upload, a file on disk, open at its start.
        options: How to transcribe it.

    Raises:
        ApiError: On entering, if the file is not audio.
    """

    def __init__(self, context: Context, file: IO[bytes], options: TurnOptions):
        self._context = context
        self._options = options
        self._chunks = decode_upload(file, context.settings.max_audio_s)
        self._news: asyncio.Queue[Update | VoxmlxError] = asyncio.Queue()
        self._feeder: asyncio.Task[None] | None = None
        self.audio_s = 0.0

    async def __aenter__(self) -> FileJob:
        """Read the first second, so that a bad file is refused before any answer starts."""
        try:
            first = await anext(self._chunks)
        except StopAsyncIteration:
            raise ApiError(400, "invalid_audio", "the file holds no audio", "file") from None
        except AudioError as error:
            raise _refusal(error) from None
        self._turn = self._context.open_turn(self._options, self._news.put_nowait)
        self._feeder = asyncio.create_task(self._feed(first))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop whatever still runs."""
        if self._feeder is not None:
            self._feeder.cancel()
            await asyncio.gather(self._feeder, return_exceptions=True)
            self._turn.cancel()
        await self._chunks.aclose()
        end = "done" if error is None else "failed"
        self._context.metrics.turns.labels("file", end).inc()
        self._context.metrics.audio.labels("file").inc(self.audio_s)

    async def updates(self) -> AsyncIterator[Update]:
        """News up to the last.

        Raises:
            ApiError: If the file turns out bad, or the engine has no place.
        """
        while True:
            update = await self._news.get()
            if isinstance(update, VoxmlxError):
                raise _refusal(update)
            if update.error is not None:
                raise _refusal(update.error)
            yield update
            if update.last:
                return

    async def _feed(self, first: Samples) -> None:
        try:
            self._take(first)
            async for samples in self._chunks:
                await self._context.wait_for_room(self._turn)
                self._take(samples)
            self._turn.finish()
        except AudioError as error:
            self._news.put_nowait(error)

    def _take(self, samples: Samples) -> None:
        self.audio_s += len(samples) / SAMPLE_RATE
        self._turn.feed(samples, SAMPLE_RATE)


def _refusal(error: VoxmlxError) -> ApiError:
    """What a client is told about an error."""
    if isinstance(error, AudioError):
        status = 413 if "longer than" in str(error) else 400
        code = "audio_too_long" if status == 413 else "invalid_audio"
        return ApiError(status, code, str(error), "file")
    if isinstance(error, (EngineFullError, EngineStoppedError)):
        return ApiError(503, "overloaded", str(error), None, {"retry-after": "5"})
    if isinstance(error, BadTurnError):
        return ApiError(400, "invalid_request", str(error))
    return ApiError(500, "transcription_failed", str(error))
