"""A long recording in pieces: where to cut it, and how to join what was understood of them.

Pieces can be decoded side by side, but none knows what was said before it: that costs accuracy
(``benchmarks/results.md``), so nothing is cut unless it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from voxmlx.audio.decode import SAMPLE_RATE
from voxmlx.types import Segment, Timings, Transcription, Word

PIECE_S = 30.0
"""Length that pieces should have; the cut is the quietest place within half of it either way."""

PAUSE_S = 0.3
"""What is compared: the loudness of so much sound. Pauses between sentences are longer."""

FRAME = SAMPLE_RATE // 100

Part = TypeVar("Part", Word, Segment)

Float32Array = npt.NDArray[np.float32]


def cut_places(samples: Float32Array, piece_s: float = PIECE_S) -> list[int]:
    """Where to cut 16 kHz sound: samples in the middle of its quietest places, ascending.

    Args:
        samples: ``(n,)`` float32.
        piece_s: Length that pieces should have; they are half of it to one and a half times it.

    Raises:
        ValueError: If ``piece_s`` is not at least twice :data:`PAUSE_S`.
    """
    if not piece_s >= 2 * PAUSE_S:
        raise ValueError(f"piece_s must be at least {2 * PAUSE_S}, got {piece_s!r}")
    n_pause = round(PAUSE_S * SAMPLE_RATE) // FRAME
    n_frames = len(samples) // FRAME
    frames = samples[: n_frames * FRAME].reshape(n_frames, FRAME)
    power = np.concatenate([[0.0], np.cumsum(np.square(frames, dtype=np.float64).mean(axis=1))])
    piece = round(piece_s * SAMPLE_RATE / FRAME)
    places: list[int] = []
    start = 0
    while n_frames - start > piece + piece // 2:
        first, last = start + piece // 2, start + piece + piece // 2
        loudness = power[first + n_pause : last + 1] - power[first : last + 1 - n_pause]
        start = first + int(np.argmin(loudness)) + n_pause // 2
        places.append(start * FRAME)
    return places


def join_pieces(results: Sequence[Transcription], starts: Sequence[float]) -> Transcription:
    """One transcription from those of consecutive pieces.

    Args:
        results: One for each piece.
        starts: Where each piece begins, in seconds.
    """
    words: list[Word] = []
    segments: list[Segment] = []
    for result, start_s in zip(results, starts, strict=True):
        words += [_shifted(word, start_s) for word in result.words]
        segments += [
            replace(
                _shifted(segment, start_s),
                words=tuple(_shifted(word, start_s) for word in segment.words),
            )
            for segment in result.segments
        ]
    parts = [result.timings for result in results]
    firsts = [part.first_text_s for part in parts if part.first_text_s is not None]
    return Transcription(
        text=" ".join(filter(None, (result.text.strip() for result in results))),
        tokens=[token for result in results for token in result.tokens],
        segments=segments,
        words=words,
        duration_s=starts[-1] + results[-1].duration_s,
        delay_ms=results[0].delay_ms,
        timings=Timings(
            audio_s=sum(part.audio_s for part in parts),
            encode_s=sum(part.encode_s for part in parts),
            decode_s=sum(part.decode_s for part in parts),
            first_text_s=min(firsts, default=None),
            total_s=max(part.total_s for part in parts),
            passes=sum(part.passes for part in parts),
            positions=sum(part.positions for part in parts),
        ),
    )


def _shifted(part: Part, by_s: float) -> Part:
    return replace(part, start_s=part.start_s + by_s, end_s=part.end_s + by_s)
