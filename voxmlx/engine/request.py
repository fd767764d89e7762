"""What callers ask of the engine and what comes back. Plain values: no MLX, no threads."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from voxmlx.config import KVCacheConfig
from voxmlx.errors import VoxmlxError
from voxmlx.types import Segment, Transcription, Word


class Kind(enum.Enum):
    """Whose time matters: a live session waits for nobody, a file takes what is left over."""

    LIVE = "live"
    FILE = "file"


@dataclass(frozen=True)
class TurnOptions:
    """How one stretch of audio is transcribed.

    Attributes:
        delay_ms: How far the text runs behind the audio; ``None`` takes the model's own.
        temperature: 0 takes the likeliest token.
        language: What the client said it is; a label, the model listens for itself.
        keywords: Phrases to expect.
        kind: Live or file.
        kv: How keys and values are compressed; ``None`` takes the engine's own setting.
    """

    delay_ms: int | None = None
    temperature: float = 0.0
    language: str | None = None
    keywords: tuple[str, ...] = ()
    kind: Kind = Kind.LIVE
    kv: KVCacheConfig | None = None


@dataclass(frozen=True)
class Piece:
    """One text token: its bytes, which may end inside a character, and its log-probability."""

    token: bytes
    logprob: float


@dataclass(frozen=True)
class Update:
    """News of one turn.

    Attributes:
        text: New settled text; all of a turn's joined are its text.
        words: Words that are complete now.
        segments: Segments that are complete now.
        pieces: Text tokens that came.
        audio_s: Audio fed so far.
        lag_s: The part of it that is not decoded yet; the rest is what the news are about.
        result: The whole turn; set by the last update alone.
        error: Why the turn ended early; set by the last update alone.
    """

    text: str = ""
    words: tuple[Word, ...] = ()
    segments: tuple[Segment, ...] = ()
    pieces: tuple[Piece, ...] = ()
    audio_s: float = 0.0
    lag_s: float = 0.0
    result: Transcription | None = None
    error: VoxmlxError | None = None

    @property
    def heard_s(self) -> float:
        """End of the audio that the newest token has heard."""
        return max(0.0, self.audio_s - self.lag_s)

    @property
    def last(self) -> bool:
        """Whether no further update follows."""
        return self.result is not None or self.error is not None


UpdateCallback = Callable[[Update], None]
"""Called on the device thread; must return at once."""


class EngineFullError(VoxmlxError):
    """Every place of the engine is taken; the caller may try again later."""


class BadTurnError(VoxmlxError):
    """The model does not do what the turn asks for."""


class EngineStoppedError(VoxmlxError):
    """The engine was stopped while a turn ran."""
