"""What all dialects share: actions, the base class, JSON and identifiers."""

from __future__ import annotations

import json
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from voxmlx.config import SUPPORTED_DELAYS_MS, KVCacheConfig, kv_cache_config
from voxmlx.engine.request import TurnOptions, Update
from voxmlx.server.pcm import Samples
from voxmlx.types import Segment, Word

MIN_RATE, MAX_RATE = 8_000, 192_000
"""Sample rates that a client may announce, in Hz."""
MAX_KEYWORDS, MAX_KEYWORD_CHARS = 200, 100
"""Keywords of a turn; more, and longer ones, are left out."""
MAX_LANGUAGE_CHARS = 35
"""Characters of a language's name that are kept (RFC 5646 advises room for as many)."""
TOKEN_S = 0.08
"""Audio behind one position of the decoder."""


@dataclass(frozen=True)
class Send:
    """Send a JSON frame."""

    frame: dict[str, Any]


@dataclass(frozen=True)
class Start:
    """Open a turn."""

    turn: str
    options: TurnOptions


@dataclass(frozen=True)
class Feed:
    """Give audio to a turn, ``(n,)`` at ``sample_rate`` Hz."""

    turn: str
    samples: Samples = field(compare=False)
    sample_rate: int

    @property
    def duration_s(self) -> float:
        """Length of the audio."""
        return len(self.samples) / self.sample_rate


@dataclass(frozen=True)
class Flush:
    """Settle what was said so far and go on."""

    turn: str


@dataclass(frozen=True)
class Finish:
    """End the audio of a turn and settle the rest."""

    turn: str


@dataclass(frozen=True)
class Cancel:
    """Drop a turn."""

    turn: str


@dataclass(frozen=True)
class Close:
    """Close the connection with a WebSocket status."""

    code: int = 1000
    reason: str = ""


Action = Send | Start | Feed | Flush | Finish | Cancel | Close


@dataclass(frozen=True)
class ServedModel:
    """The model behind the server.

    Attributes:
        name: Name shown to clients.
        aliases: Other names clients may use.
        delay_ms: Its own delay.
    """

    name: str
    aliases: tuple[str, ...] = ()
    delay_ms: int = 480

    def answers_to(self, name: str) -> bool:
        """Whether a client that asks for ``name`` means this model.

        Clients are written for other servers, whose repositories of the same model have other
        names; so any Voxtral is this one.
        """
        return name in (self.name, *self.aliases) or "voxtral" in name.lower()


class ClientError(ValueError):
    """A client's frame cannot be obeyed.

    Args:
        code: Short name of what is wrong.
        message: One sentence for people.
        param: Path of the field at fault.
    """

    def __init__(self, code: str, message: str, param: str | None = None):
        super().__init__(message)
        self.code = code
        self.param = param


class ClientFrame(BaseModel):
    """Base of frames from clients: unknown fields are ignored, types are not coerced."""

    model_config = ConfigDict(strict=True, extra="ignore")


class KVFields(ClientFrame):
    """How keys and values are held during a session: this server's own fields of any dialect."""

    kv_bits: int | None = None
    kv_rotation: str | None = None


F = TypeVar("F", bound=BaseModel)


def parse_json(text: str | bytes) -> dict[str, Any]:
    """Read one frame.

    Raises:
        ClientError: If it is not a JSON object.
    """
    if isinstance(text, bytes):
        raise ClientError("invalid_json", "frames are JSON text, got a binary frame")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise ClientError("invalid_json", "the frame is not valid JSON") from None
    if not isinstance(value, dict):
        raise ClientError("invalid_json", f"a frame is an object, got {type(value).__name__}")
    return value


def parse_frame(cls: type[F], value: Mapping[str, Any]) -> F:
    """Check the fields of a frame.

    Raises:
        ClientError: Naming the first field at fault.
    """
    try:
        return cls.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        param = ".".join(str(part) for part in first["loc"])
        raise ClientError("invalid_event", f"{param}: {first['msg']}", param) from None


def check_delay(delay_ms: int | None, param: str) -> int | None:
    """Return a delay that the model knows.

    Raises:
        ClientError: If the model was not trained for it.
    """
    if delay_ms is not None and delay_ms not in SUPPORTED_DELAYS_MS:
        raise ClientError(
            "invalid_value",
            f"{param} must be a multiple of 80 from 80 to 1200, or 2400, got {delay_ms}",
            param,
        )
    return delay_ms


def check_kv(fields: KVFields, where: str = "") -> KVCacheConfig | None:
    """How keys and values shall be held; ``None`` takes the server's own setting.

    Args:
        fields: What the client sent.
        where: Path of the fields, with a dot behind it.

    Raises:
        ClientError: If there is no such setting.
    """
    if fields.kv_bits is None and fields.kv_rotation is not None:
        raise ClientError("invalid_value", "kv_rotation needs kv_bits", where + "kv_rotation")
    try:
        return kv_cache_config(fields.kv_bits, fields.kv_rotation or "hadamard")
    except ValueError as error:
        name = "kv_rotation" if "kv_rotation" in str(error) else "kv_bits"
        raise ClientError("invalid_value", f"{where}{error}", where + name) from None


def check_rate(rate: int, param: str) -> int:
    """Return a sample rate that can be converted.

    Raises:
        ClientError: If it is out of range.
    """
    if not MIN_RATE <= rate <= MAX_RATE:
        raise ClientError(
            "invalid_value", f"{param} must be {MIN_RATE} to {MAX_RATE} Hz, got {rate}", param
        )
    return rate


def clean_keywords(values: Iterable[str]) -> tuple[str, ...]:
    """Phrases to expect, without blanks; as many and as long as cost the device nothing."""
    phrases = (value.strip() for value in values)
    kept = [phrase for phrase in phrases if 0 < len(phrase) <= MAX_KEYWORD_CHARS]
    return tuple(kept[:MAX_KEYWORDS])


def query_delay(query: Mapping[str, str]) -> int | None:
    """The delay in the address, ``?delay_ms=``, or ``None``.

    Raises:
        ClientError: If it is no delay of the model.
    """
    text = query.get("delay_ms")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        raise ClientError("invalid_value", f"delay_ms must be a number, got {text!r}", "delay_ms")
    return check_delay(int(text), "delay_ms")


def new_id(prefix: str) -> str:
    """A fresh identifier."""
    return f"{prefix}_{secrets.token_hex(12)}"


def word_dict(word: Word) -> dict[str, Any]:
    """A word as all dialects write it."""
    confidence = None if word.confidence is None else round(word.confidence, 4)
    return {
        "word": word.text,
        "start": round(word.start_s, 3),
        "end": round(word.end_s, 3),
        "confidence": confidence,
    }


def segment_dict(segment: Segment) -> dict[str, Any]:
    """A segment as all dialects write it."""
    return {
        "text": segment.text,
        "start": round(segment.start_s, 3),
        "end": round(segment.end_s, 3),
        "words": [word_dict(word) for word in segment.words],
    }


def token_usage(duration_s: float, n_tokens: int) -> tuple[int, int]:
    """Positions of audio and tokens written."""
    return int(np.ceil(round(duration_s / TOKEN_S, 6))), n_tokens


class Protocol(ABC):
    """One connection in one dialect.

    Subclasses say what frames mean in :meth:`handle`; a :class:`ClientError` raised there becomes
    an error frame and leaves the connection as it was.
    """

    dialect: str

    @abstractmethod
    def greet(self) -> list[Action]:
        """What is sent before the client speaks."""

    @abstractmethod
    def handle(self, event: dict[str, Any]) -> list[Action]:
        """Obey one frame.

        Raises:
            ClientError: If it cannot be obeyed.
        """

    @abstractmethod
    def error(self, error: ClientError, event_id: str | None = None) -> Send:
        """An error frame."""

    @abstractmethod
    def news(self, turn: str, update: Update) -> list[Action]:
        """Tell the client what the engine found out."""

    def receive(self, text: str | bytes) -> list[Action]:
        """Take a frame from the client; never raises."""
        event_id = None
        try:
            event = parse_json(text)
            if isinstance(event.get("event_id"), str):
                event_id = event["event_id"][:128]
            if not isinstance(event.get("type"), str):
                raise ClientError("invalid_event", "the frame needs a 'type'", "type")
            return self.handle(event)
        except ClientError as error:
            return [self.error(error, event_id)]


class Dialect(Protocol):
    """A protocol with what all dialects remember of their session.

    Args:
        model: What is served.
        query: Parameters of the address.

    Raises:
        ClientError: If a parameter is wrong.
    """

    def __init__(self, model: ServedModel, query: Mapping[str, str]):
        self._model = model
        self._delay_ms = query_delay(query)
        self._language: str | None = None
        self._kv: KVCacheConfig | None = None
        self._turn: str | None = None

    def set_session(
        self, delay_ms: int | None, language: str | None, kv: KVCacheConfig | None
    ) -> None:
        """Take over what a client named; ``None`` leaves it as it was."""
        self._delay_ms = self._delay_ms if delay_ms is None else delay_ms
        self._language = self._language if language is None else language[:MAX_LANGUAGE_CHARS]
        self._kv = self._kv if kv is None else kv

    @property
    def shown_delay_ms(self) -> int:
        """The delay of the session, the model's own one if the client named none."""
        return self._model.delay_ms if self._delay_ms is None else self._delay_ms

    def turn_options(self, keywords: Iterable[str] = ()) -> TurnOptions:
        """How a turn that begins now is transcribed."""
        return TurnOptions(
            delay_ms=self._delay_ms,
            language=self._language,
            keywords=clean_keywords(keywords),
            kv=self._kv,
        )
