"""How each file format spells a result: txt, srt, vtt, tsv and json."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from typing import Any, TextIO

from voxmlx.types import Segment, Transcription
from voxmlx.writers.cues import Cue, cues_of

Writer = Callable[[Transcription, TextIO], None]


class SubtitleWriter:
    """Writes cues to an open file one by one; the file is valid after each of them.

    Args:
        file: Where to write.
        format: ``srt`` or ``vtt``.

    Raises:
        ValueError: For another format.
    """

    def __init__(self, file: TextIO, format: str):
        if format not in ("srt", "vtt"):
            raise ValueError(f"format must be srt or vtt, got {format!r}")
        self._file = file
        self._vtt = format == "vtt"
        self._n_cues = 0
        if self._vtt:
            file.write("WEBVTT\n\n")
            file.flush()

    def write(self, cue: Cue) -> None:
        """Add a cue."""
        self._n_cues += 1
        if self._vtt:
            head, lines = "", [_escape_vtt(line) for line in cue.lines]
        else:
            head, lines = f"{self._n_cues}\n", [_escape_srt(line) for line in cue.lines]
        start, end = (self._timestamp(time_s) for time_s in (cue.start_s, cue.end_s))
        self._file.write(f"{head}{start} --> {end}\n" + "\n".join(lines) + "\n\n")
        self._file.flush()

    def _timestamp(self, time_s: float) -> str:
        seconds, ms = divmod(round(time_s * 1000), 1000)
        minutes, seconds = divmod(seconds, 60)
        hours, minutes = divmod(minutes, 60)
        point = "." if self._vtt else ","
        return f"{hours:02d}:{minutes:02d}:{seconds:02d}{point}{ms:03d}"


def _escape_vtt(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _escape_srt(text: str) -> str:
    """SRT has no escapes; an arrow in the text would read as a time line."""
    return text.replace("-->", "->")


def result_dict(result: Transcription, tokens: bool = False) -> dict[str, Any]:
    """A result as plain JSON values, in the field names that Whisper's JSON files have.

    Args:
        result: What to convert.
        tokens: Whether to add the token ids.
    """
    values: dict[str, Any] = {
        "text": result.text,
        "language": result.language,
        "duration": _rounded(result.duration_s),
        "delay_ms": result.delay_ms,
        "segments": [_segment_dict(i, segment) for i, segment in enumerate(result.segments)],
        "timings": {
            name: _rounded(value) for name, value in dataclasses.asdict(result.timings).items()
        },
    }
    if tokens:
        values["tokens"] = list(result.tokens)
    return values


def _segment_dict(i: int, segment: Segment) -> dict[str, Any]:
    return {
        "id": i,
        "start": _rounded(segment.start_s),
        "end": _rounded(segment.end_s),
        "text": segment.text,
        "words": [
            {
                "word": word.text,
                "start": _rounded(word.start_s),
                "end": _rounded(word.end_s),
                "confidence": _rounded(word.confidence),
            }
            for word in segment.words
        ],
    }


def _rounded(value: float | None) -> float | None:
    """Milliseconds or thousandths are all that a reader needs; whole numbers stay whole."""
    return round(value, 3) if isinstance(value, float) else value


def _write_txt(result: Transcription, file: TextIO) -> None:
    file.write(result.text + "\n")


def _write_subtitles(result: Transcription, file: TextIO, format: str) -> None:
    writer = SubtitleWriter(file, format)
    for cue in cues_of(result.words, result.duration_s):
        writer.write(cue)


def _write_tsv(result: Transcription, file: TextIO) -> None:
    """Segments, one a line; times in whole milliseconds, as Whisper writes them."""
    file.write("start\tend\ttext\n")
    for segment in result.segments:
        start, end = round(segment.start_s * 1000), round(segment.end_s * 1000)
        file.write(f"{start}\t{end}\t{' '.join(segment.text.split())}\n")


def _write_json(result: Transcription, file: TextIO) -> None:
    json.dump(result_dict(result), file, ensure_ascii=False, indent=2)
    file.write("\n")


_WRITERS: dict[str, Writer] = {
    "txt": _write_txt,
    "srt": partial(_write_subtitles, format="srt"),
    "vtt": partial(_write_subtitles, format="vtt"),
    "tsv": _write_tsv,
    "json": _write_json,
}

FORMATS = tuple(_WRITERS)


def get_writer(format: str) -> Writer:
    """Return the function that writes a result to an open text file.

    Raises:
        ValueError: If the format is unknown.
    """
    if format not in _WRITERS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    return _WRITERS[format]
