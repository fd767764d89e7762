"""Uploads to samples, through a process with limits. Async; knows no HTTP."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from typing import IO

import numpy as np

from voxmlx.errors import AudioError
from voxmlx.server.decode_worker import BAD_AUDIO
from voxmlx.server.pcm import Samples

SAMPLE_RATE = 16_000
READ_BYTES = 4 * SAMPLE_RATE
"""Bytes of one piece: a second of audio."""
_MAX_REASON = 300


async def decode_upload(file: IO[bytes], max_audio_s: float) -> AsyncGenerator[Samples, None]:
    """Samples of a recording, mono at 16 kHz, about a second a piece.

    The process waits while nobody asks for more, so a small file that holds days of audio costs
    neither memory nor time.

    Args:
        file: A file on disk, open at its start; the process reads it by its descriptor.
        max_audio_s: Longest recording.

    Raises:
        AudioError: If the file cannot be decoded or holds more than ``max_audio_s``.
    """
    cpu_s = 60 + int(
        max_audio_s / 50
    )  # decoding and resampling run at some hundred times real time
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "voxmlx.server.decode_worker",
        str(cpu_s),
        stdin=file,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=4 * READ_BYTES,
    )
    if process.stdout is None or process.stderr is None:
        raise RuntimeError("the process has no pipes")
    reason = asyncio.create_task(process.stderr.read(64 * 1024))
    n_left = round(max_audio_s * SAMPLE_RATE)
    try:
        while True:
            data = await _read(process.stdout)
            samples = np.frombuffer(data, np.float32)
            n_left -= len(samples)
            if n_left < 0:
                raise AudioError(f"the recording is longer than {max_audio_s:g} s")
            if len(samples):
                yield samples
            if len(data) < READ_BYTES:
                break
        status = await process.wait()
        if status:
            raise AudioError(_reason(status, await reason))
    finally:
        if process.returncode is None:
            process.kill()
            while await process.stdout.read(READ_BYTES):  # wait() waits for the end of the pipe
                pass
            await process.wait()
        reason.cancel()


async def _read(stream: asyncio.StreamReader) -> bytes:
    """One piece; less at the end."""
    try:
        return await stream.readexactly(READ_BYTES)
    except asyncio.IncompleteReadError as error:
        return error.partial[: len(error.partial) // 4 * 4]


def _reason(status: int, text: bytes) -> str:
    lines = text.decode("utf-8", "replace").strip().splitlines()
    if status == BAD_AUDIO and lines:
        return lines[-1][:_MAX_REASON]
    return "the file cannot be decoded within the limits of the server"
