"""Files that a live transcription writes as it goes. They are valid after every write."""

from __future__ import annotations

import logging
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import numpy as np

from voxmlx.audio.live import Float32Array
from voxmlx.streaming.session import StreamingSession
from voxmlx.types import Event, SegmentEnd, WordEnd
from voxmlx.writers import (
    CueBuilder,
    SubtitleWriter,
    atomic_write,
    get_writer,
    output_error,
)

_MAX_WAV_BYTES = 0xFFFFFFFF - 1000
"""A WAV header counts bytes in 32 bits: 37 hours at 16 kHz."""

_logger = logging.getLogger(__name__)


class TranscriptFile:
    """Writes what a session settles to an open file: lines, cues or rows.

    Args:
        file: Where to write.
        format: ``txt`` (a segment a line), ``srt``, ``vtt`` or ``tsv``.
        session: Tells how far the text is settled.
    """

    def __init__(self, file: TextIO, format: str, session: StreamingSession):
        self._file = file
        self._format = format
        self._session = session
        self._cues = CueBuilder()
        self._subtitles = SubtitleWriter(file, format) if format in ("srt", "vtt") else None
        if format == "tsv":
            self._write("start\tend\ttext\n")

    def add(self, event: Event) -> None:
        """Take an event."""
        if self._subtitles is not None:
            if isinstance(event, WordEnd):
                for cue in self._cues.add(event.word):
                    self._subtitles.write(cue)
        elif isinstance(event, SegmentEnd):
            segment = event.segment
            text = " ".join(segment.text.split())
            if self._format == "tsv":
                times = f"{round(segment.start_s * 1000)}\t{round(segment.end_s * 1000)}\t"
                self._write(f"{times}{text}\n")
            else:
                self._write(f"{text}\n")

    def advance(self) -> None:
        """Write a cue that only a pause can follow."""
        if self._subtitles is not None:
            for cue in self._cues.advance(self._session.settled_s):
                self._subtitles.write(cue)

    def finish(self) -> None:
        """Write what is open; the session is done."""
        if self._subtitles is not None:
            for cue in self._cues.finalize(self._session.duration_s):
                self._subtitles.write(cue)

    def _write(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()


class ResultFile:
    """Writes the whole result at the end, for formats that cannot grow (JSON).

    Args:
        path: Where to write; the file appears when it is complete.
        format: A format of :mod:`voxmlx.writers`.
        session: Gives the result.
    """

    def __init__(self, path: Path, format: str, session: StreamingSession):
        self._path = path
        self._format = format
        self._session = session

    def add(self, event: Event) -> None:
        """Wait for the end."""

    def advance(self) -> None:
        """Wait for the end."""

    def finish(self) -> None:
        """Write the result."""
        with atomic_write(self._path) as file:
            get_writer(self._format)(self._session.result(), file)


@contextmanager
def open_output(
    path: Path, format: str, session: StreamingSession
) -> Iterator[TranscriptFile | ResultFile]:
    """Open the file of a live transcription.

    Raises:
        OutputError: If it cannot be written.
    """
    if format == "json":
        yield ResultFile(path, format, session)
        return
    try:
        with path.open("w", encoding="utf-8", newline="\n") as file:
            yield TranscriptFile(file, format, session)
    except OSError as error:
        raise output_error(path, error) from error


class WavFile:
    """Sound as 16-bit WAV. The header is put right after every write.

    Args:
        path: Where to write.
        sample_rate: In Hz.

    Raises:
        OutputError: If the file cannot be written.
    """

    def __init__(self, path: Path, sample_rate: int):
        self._path = path
        self._n_bytes = 0
        try:
            self._raw = path.open("wb")
        except OSError as error:
            raise output_error(path, error) from error
        self._file = wave.open(self._raw, "wb")
        self._file.setnchannels(1)
        self._file.setsampwidth(2)
        self._file.setframerate(sample_rate)

    def write(self, samples: Float32Array) -> None:
        """Add samples, ``(n,)`` in [-1, 1]; louder ones are clipped."""
        data = np.round(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
        if self._n_bytes <= _MAX_WAV_BYTES < self._n_bytes + len(data):
            _logger.warning("%s is full at 4 GB; later sound is not saved", self._path)
        self._n_bytes += len(data)
        if self._n_bytes > _MAX_WAV_BYTES:
            return
        try:
            self._file.writeframes(data)
            self._raw.flush()
        except OSError as error:
            raise output_error(self._path, error) from error

    def close(self) -> None:
        """End the file."""
        try:
            self._file.close()
            self._raw.close()
        except OSError as error:
            raise output_error(self._path, error) from error
