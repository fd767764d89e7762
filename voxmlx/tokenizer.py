"""Tekken, Mistral's byte-level tokenizer: ids to bytes and text, text to ids.

Ids below ``n_special`` are control tokens without text; text id = ``n_special`` + rank in the
vocabulary. Nothing here knows models, prompts or the meaning of a position in time.
"""

from __future__ import annotations

import base64
import codecs
import io
import json
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import tiktoken

from voxmlx.errors import TokenizerError

logger = logging.getLogger(__name__)

D = TypeVar("D")

N_BYTES = 256
"""The first ranks of every Tekken vocabulary are the single bytes, in order."""

# Control tokens of files that do not name them (mistral_common's Tekken tables).
_FALLBACK_IDS = {"<unk>": 0, "<s>": 1, "</s>": 2, "[STREAMING_PAD]": 32, "[STREAMING_WORD]": 33}

_AUDIO_KEYS = {
    "sampling_rate",
    "frame_rate",
    "audio_encoding_config",
    "chunk_length_s",
    "transcription_format",
    "transcription_delay_ms",
    "streaming_look_ahead_ms",
    "streaming_look_back_ms",
    "streaming_n_left_pad_tokens",
    "voice_num_audio_tokens",
}


@dataclass(frozen=True)
class TokenizerAudio:
    """The ``audio`` section of ``tekken.json``.

    ``transcription_delay_ms`` is ``None`` and ``chunk_length_s`` a number for offline models; for
    streaming ones it is the other way round.
    """

    sample_rate: int = 16000
    frame_rate: float = 12.5
    chunk_length_s: float | None = None
    transcription_format: str = "instruct"
    transcription_delay_ms: int | None = None
    n_left_pad_tokens: int = 32


class Tokenizer:
    """A Tekken vocabulary.

    Args:
        pieces: Bytes of each text token, by rank.
        n_special: Number of control ids below the first text id.
        pattern: Regular expression that cuts text before byte pairs are merged.
        special_ids: Control ids by name.
        audio: The file's ``audio`` section, if it has one.
        source: Name for error messages.
    """

    def __init__(
        self,
        pieces: list[bytes],
        *,
        n_special: int,
        pattern: str,
        special_ids: Mapping[str, int],
        audio: TokenizerAudio | None = None,
        source: str = "tekken.json",
    ):
        self._pieces = pieces
        self._pattern = pattern
        self._special_ids = dict(special_ids)
        self._source = source
        self.n_special = n_special
        self.n_vocab = n_special + len(pieces)
        self.audio = audio
        self.bos_id = self._named("<s>")
        self.eos_id = self._named("</s>")
        self.pad_id = self._named("[STREAMING_PAD]")
        self.word_id = self._named("[STREAMING_WORD]")

    @classmethod
    def from_file(cls, path: str | Path) -> Tokenizer:
        """Read a ``tekken.json``.

        Raises:
            TokenizerError: If the file is missing, is not JSON, or breaks a rule of the format.
        """
        try:
            data = json.loads(Path(path).read_bytes())
        except FileNotFoundError as error:
            raise TokenizerError(
                f"{path}: no such file; a model folder needs the tekken.json of its release"
            ) from error
        except OSError as error:
            raise TokenizerError(f"{path}: cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise TokenizerError(
                f"{path}: not JSON ({error}); download tekken.json again"
            ) from error
        return cls.from_dict(data, source=str(path))

    @classmethod
    def from_dict(cls, data: Any, source: str = "tekken.json") -> Tokenizer:
        """Build from the parsed content of a ``tekken.json``.

        A file may list more entries than the model has ids: ranks beyond ``default_vocab_size``
        are left out.

        Raises:
            TokenizerError: If the content breaks a rule of the format.
        """
        data = _expect(data, dict, source)
        where = f"{source}: config"
        config = _expect(data.get("config"), dict, where)
        n_special = _count(config, "default_num_special_tokens", where)
        n_vocab = _count(config, "default_vocab_size", where)
        vocab = _expect(data.get("vocab"), list, f"{source}: vocab")
        n_pieces = n_vocab - n_special
        if not N_BYTES <= n_pieces <= len(vocab):
            raise TokenizerError(
                f"{source}: {n_vocab} ids with {n_special} special ones need {n_pieces} vocab "
                f"entries, at least {N_BYTES}; the file has {len(vocab)}"
            )
        return cls(
            _pieces(vocab[:n_pieces], source),
            n_special=n_special,
            pattern=_expect(config.get("pattern"), str, f"{where}.pattern"),
            special_ids=_special_ids(data.get("special_tokens"), n_special, source),
            audio=_audio(data["audio"], source) if data.get("audio") is not None else None,
            source=source,
        )

    def encode(self, text: str) -> list[int]:
        """Split text into ids. Names of control tokens in the text are ordinary text."""
        return [self.n_special + rank for rank in self._encoding.encode_ordinary(text)]

    def decode(self, ids: Iterable[int]) -> str:
        """Join the text of ids: control tokens give none, invalid UTF-8 becomes U+FFFD."""
        return b"".join(map(self.token_bytes, ids)).decode(errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        """Bytes of one id, ``b""`` for control tokens.

        Raises:
            ValueError: If the vocabulary has no such id.
        """
        if not 0 <= token_id < self.n_vocab:
            raise ValueError(f"token id must be in [0, {self.n_vocab}), got {token_id!r}")
        return self._pieces[token_id - self.n_special] if token_id >= self.n_special else b""

    def special_id(self, name: str) -> int | None:
        """Id of a control token such as ``[AUDIO]``, or ``None`` if the file does not name it."""
        return self._special_ids.get(name)

    def _named(self, name: str) -> int:
        return self._special_ids.get(name, _FALLBACK_IDS[name])

    @cached_property
    def _encoding(self) -> tiktoken.Encoding:
        """The encoder. Built at the first use (0.2 s): transcription only decodes."""
        try:
            return tiktoken.Encoding(
                name="tekken",
                pat_str=self._pattern,
                mergeable_ranks={piece: rank for rank, piece in enumerate(self._pieces)},
                special_tokens={},
            )
        except ValueError as error:
            raise TokenizerError(
                f"{self._source}: config.pattern is not a regular expression ({error})"
            ) from error


class StreamingDetokenizer:
    """Text of a growing list of ids, in constant time for each.

    The pieces, joined, equal :meth:`Tokenizer.decode` of all ids. No piece ends inside a character:
    the bytes of an unfinished one wait for the next token or :meth:`finalize`.

    Args:
        tokenizer: Gives the bytes of ids.
        keep_text: Whether :attr:`text` collects the pieces. Switch it off for endless streams.
    """

    def __init__(self, tokenizer: Tokenizer, keep_text: bool = True):
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._text = io.StringIO() if keep_text else None

    @property
    def text(self) -> str:
        """All text that was settled so far; empty without ``keep_text``."""
        return "" if self._text is None else self._text.getvalue()

    def add_token(self, token_id: int) -> str:
        """Take one id and return the text that it settles, often none."""
        return self._settle(self._decoder.decode(self._tokenizer.token_bytes(token_id)))

    def finalize(self) -> str:
        """End the text: an unfinished character becomes U+FFFD. More ids may follow."""
        piece = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return self._settle(piece)

    def _settle(self, piece: str) -> str:
        if self._text is not None:
            self._text.write(piece)
        return piece


def _expect(value: Any, kind: type, where: str) -> Any:
    """Return ``value`` if it is of the JSON type ``kind``; raise otherwise."""
    if not isinstance(value, kind):
        got = "nothing" if value is None else type(value).__name__
        raise TokenizerError(f"{where}: expected {kind.__name__}, got {got}")
    return value


def _count(config: Mapping[str, Any], key: str, where: str) -> int:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise TokenizerError(f"{where}.{key}: expected a positive integer, got {value!r}")
    return value


def _pieces(vocab: list[Any], source: str) -> list[bytes]:
    """Bytes of each vocabulary entry; checks order, base64, the byte entries and uniqueness."""
    pieces = []
    for rank, entry in enumerate(vocab):
        try:
            if entry["rank"] != rank:
                raise TokenizerError(
                    f"{source}: vocab[{rank}] has rank {entry['rank']!r}; entries must be in order"
                )
            pieces.append(base64.b64decode(entry["token_bytes"], validate=True))
        except (KeyError, TypeError) as error:
            raise TokenizerError(
                f"{source}: vocab[{rank}] needs a rank and base64 token_bytes, got {entry!r:.80}"
            ) from error
        except ValueError as error:
            raise TokenizerError(
                f"{source}: vocab[{rank}].token_bytes is not base64: {entry['token_bytes']!r:.80}"
            ) from error
    if pieces[:N_BYTES] != [bytes([value]) for value in range(N_BYTES)]:
        raise TokenizerError(f"{source}: the first {N_BYTES} vocab entries must be the bytes 0-255")
    if len(set(pieces)) != len(pieces):
        raise TokenizerError(f"{source}: two vocab entries have the same token_bytes")
    return pieces


def _special_ids(entries: Any, n_special: int, source: str) -> dict[str, int]:
    """Control ids by name; a file without the list names none."""
    if entries is None:
        return {}
    ids: dict[str, int] = {}
    ranks: set[int] = set()
    for i, entry in enumerate(_expect(entries, list, f"{source}: special_tokens")):
        where = f"{source}: special_tokens[{i}]"
        entry = _expect(entry, dict, where)
        name, rank = entry.get("token_str"), entry.get("rank")
        if not isinstance(name, str) or not isinstance(rank, int) or not 0 <= rank < n_special:
            raise TokenizerError(
                f"{where}: expected a token_str and a rank below {n_special}, got {entry!r:.80}"
            )
        if name in ids or rank in ranks:
            raise TokenizerError(f"{where}: {name!r} or its rank {rank} is listed twice")
        ids[name] = rank
        ranks.add(rank)
    return ids


def _audio(section: Any, source: str) -> TokenizerAudio:
    where = f"{source}: audio"
    section = _expect(section, dict, where)
    unknown = sorted(set(section) - _AUDIO_KEYS)
    if unknown:
        logger.warning("%s: unknown keys are ignored: %s", where, ", ".join(unknown))
    delay_ms = _number(section, "transcription_delay_ms", where, None)
    return TokenizerAudio(
        sample_rate=int(_number(section, "sampling_rate", where, 16000)),
        frame_rate=float(_number(section, "frame_rate", where, 12.5)),
        chunk_length_s=_number(section, "chunk_length_s", where, None),
        transcription_format=_expect(
            section.get("transcription_format", "instruct"), str, f"{where}.transcription_format"
        ),
        transcription_delay_ms=None if delay_ms is None else int(delay_ms),
        n_left_pad_tokens=int(_number(section, "streaming_n_left_pad_tokens", where, 32)),
    )


def _number(section: Mapping[str, Any], key: str, where: str, default: D) -> float | D:
    """A positive number, or ``default`` where the key is absent or null."""
    value = section.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise TokenizerError(f"{where}.{key}: expected a positive number, got {value!r}")
    return value
