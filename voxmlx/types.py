"""Results as plain values: words, segments and whole transcriptions. Times are in seconds."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Word:
    """One word as written, with its punctuation.

    ``confidence`` is in [0, 1], or ``None`` where no probabilities were computed. ``space_before``
    is false where the word follows the one before it without a space, as in Chinese.
    """

    text: str
    start_s: float
    end_s: float
    confidence: float | None = None
    space_before: bool = True


@dataclass(frozen=True)
class Segment:
    """A run of words that read as one unit: a sentence, or what stands between two pauses."""

    text: str
    start_s: float
    end_s: float
    words: tuple[Word, ...] = ()


@dataclass(frozen=True)
class Timings:
    """Where the time went, in seconds of wall clock.

    ``encode_s`` holds mel, encoder and adapter; ``decode_s`` the decoder, prompt included. The
    device works on both at once where it can, so parts need not add up to ``total_s``.
    """

    audio_s: float = 0.0
    encode_s: float = 0.0
    decode_s: float = 0.0
    first_text_s: float | None = None
    total_s: float = 0.0
    passes: int = 0
    positions: int = 0

    @property
    def rtf(self) -> float:
        """Real-time factor: processing time for one second of audio (0 for empty audio)."""
        return self.total_s / self.audio_s if self.audio_s > 0 else 0.0


@dataclass(frozen=True)
class Transcription:
    """What was said in one recording.

    ``tokens`` holds every id from the first output position on, pads and word marks included.
    """

    text: str
    tokens: list[int]
    segments: list[Segment]
    words: list[Word]
    duration_s: float
    delay_ms: int | None = None
    language: str | None = None
    timings: Timings = field(default_factory=Timings)


@dataclass(frozen=True)
class Answer:
    """What a model answered in a conversation.

    ``finish_reason`` is ``"stop"`` where the model ended its answer, ``"length"`` where a limit
    did. ``n_reused`` of the ``n_prompt`` positions of the prompt were left by an earlier call.
    """

    text: str
    tokens: list[int]
    finish_reason: str
    n_prompt: int = 0
    n_reused: int = 0
    timings: Timings = field(default_factory=Timings)


@dataclass(frozen=True)
class TextDelta:
    """New settled text of a stream; the deltas joined are the text."""

    text: str


@dataclass(frozen=True)
class WordEnd:
    """A word of a stream is complete."""

    word: Word


@dataclass(frozen=True)
class SegmentEnd:
    """A segment of a stream is complete."""

    segment: Segment


@dataclass(frozen=True)
class TokenScores:
    """One decoded position, where log-probabilities were asked for.

    ``alternatives`` holds the likeliest ids with their log-probabilities, best first.
    """

    index: int
    token_id: int
    logprob: float
    alternatives: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Flushed:
    """Everything that was said before a flush has been returned; ``end_s`` is its time."""

    end_s: float


Event = TextDelta | WordEnd | SegmentEnd | TokenScores | Flushed
