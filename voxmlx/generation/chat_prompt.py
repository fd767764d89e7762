"""Prompts of the offline model: one transcription, or a conversation about recordings.

Source: the instruct tokenizer v7 of ``mistral_common`` 1.13. A recording is ``[BEGIN_AUDIO]`` and
one position for each 80 ms; a turn stands between ``[INST]`` and ``[/INST]``, its answer ends with
``</s>``. Knows the tokenizer, but neither files nor the network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from voxmlx.tokenizer import Tokenizer

LANGUAGES = ("ar", "de", "en", "es", "fr", "hi", "it", "nl", "pt")
"""Languages of the released model (its model card; vLLM adds Arabic)."""

# Ids for files that do not name them (the released tokenizer).
_FALLBACK_IDS = {
    "[INST]": 3,
    "[/INST]": 4,
    "[SYSTEM_PROMPT]": 17,
    "[/SYSTEM_PROMPT]": 18,
    "[BEGIN_AUDIO]": 25,
    "[TRANSCRIBE]": 34,
}

BETWEEN_TEXTS = "\n\n"
"""What joins texts that follow each other in one turn (``mistral_common``)."""

ROLES = ("system", "user", "assistant")


class Clip:
    """One recording of a prompt.

    Args:
        samples: ``(n,)`` float32 at the model's rate, at least one.
        chunk_samples: Samples of one chunk of the encoder; zeros fill the last one.
        chunk_tokens: Positions of one chunk.

    Raises:
        ValueError: If there are no samples.
    """

    def __init__(self, samples: npt.NDArray[np.float32], chunk_samples: int, chunk_tokens: int):
        if not len(samples):
            raise ValueError("a recording in a prompt must hold samples, got none")
        n_chunks = -(-len(samples) // chunk_samples)
        self.n_samples = len(samples)
        self.n_tokens = n_chunks * chunk_tokens
        self.digest = hashlib.sha256(samples.tobytes()).digest()
        self.padded = np.pad(samples, (0, n_chunks * chunk_samples - len(samples)))


Piece = tuple[int, ...] | Clip


@dataclass(frozen=True)
class Prompt:
    """Ids and recordings in the order of their positions."""

    pieces: tuple[Piece, ...]

    def __len__(self) -> int:
        """Positions."""
        return sum(p.n_tokens if isinstance(p, Clip) else len(p) for p in self.pieces)

    @property
    def clips(self) -> tuple[Clip, ...]:
        """The recordings."""
        return tuple(p for p in self.pieces if isinstance(p, Clip))

    def keys(self) -> list[Hashable]:
        """What stands at each position: an id, or a recording and a place in it.

        Prompts that begin with the same keys have the same keys and values there.
        """
        keys: list[Hashable] = []
        for piece in self.pieces:
            if isinstance(piece, Clip):
                keys += [(piece.digest, i) for i in range(piece.n_tokens)]
            else:
                keys += piece
        return keys


@dataclass(frozen=True)
class Message:
    """One message of a conversation: texts and recordings in order.

    Raises:
        ValueError: If the role is unknown, or a recording stands outside a user's message.
    """

    role: str
    content: tuple[str | Clip, ...]

    def __post_init__(self) -> None:
        """Check the values."""
        if self.role not in ROLES:
            raise ValueError(f"role must be one of {', '.join(ROLES)}, got {self.role!r}")
        if self.role != "user" and self.has_audio:
            raise ValueError(f"only a user's message may hold audio, got it in {self.role!r}")

    @property
    def has_audio(self) -> bool:
        """Whether it holds a recording."""
        return any(isinstance(part, Clip) for part in self.content)


def check_language(language: str | None) -> None:
    """Check the language of a transcription.

    Raises:
        ValueError: If the model was not trained for it.
    """
    if language is not None and language not in LANGUAGES:
        raise ValueError(
            f"language must be one of {', '.join(LANGUAGES)}, or None to let the model find it, "
            f"got {language!r}"
        )


def transcription_prompt(tokenizer: Tokenizer, clip: Clip, language: str | None = None) -> Prompt:
    """The prompt of a transcription; the text follows at once.

    Raises:
        ValueError: If the model was not trained for the language.
    """
    check_language(language)
    ids = _Ids(tokenizer)
    spoken = [] if language is None else tokenizer.encode(f"lang:{language}")
    return Prompt(
        (
            (tokenizer.bos_id, ids["[INST]"], ids["[BEGIN_AUDIO]"]),
            clip,
            (ids["[/INST]"], *spoken, ids["[TRANSCRIBE]"]),
        )
    )


def chat_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> Prompt:
    """The prompt of a conversation; the answer follows at once.

    Neighbouring messages of the user or the assistant are one turn, as in ``mistral_common``.

    Raises:
        ValueError: If the order of the messages is not one the model knows.
    """
    check_order(messages)
    ids = _Ids(tokenizer)
    marks: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
        "system": ((ids["[SYSTEM_PROMPT]"],), (ids["[/SYSTEM_PROMPT]"],)),
        "user": ((ids["[INST]"],), (ids["[/INST]"],)),
        "assistant": ((), (tokenizer.eos_id,)),
    }
    pieces: list[Piece] = [(tokenizer.bos_id,)]
    for turn in _turns(messages):
        before, after = marks[turn.role]
        pieces.append(before)
        for part in turn.content:
            if isinstance(part, Clip):
                pieces += [(ids["[BEGIN_AUDIO]"],), part]
            else:
                pieces.append(tuple(tokenizer.encode(part)))
        pieces.append(after)
    return Prompt(tuple(piece for piece in pieces if isinstance(piece, Clip) or piece))


def check_order(messages: Sequence[Message]) -> None:
    """Check the order of a conversation's messages.

    Raises:
        ValueError: If it is empty, does not end with the user, or has a misplaced system prompt.
    """
    if not messages:
        raise ValueError("messages must hold at least one message, got none")
    roles = [message.role for message in messages]
    if roles[-1] != "user":
        raise ValueError(f"the last message must be the user's, got role {roles[-1]!r}")
    if "system" in roles and any(message.has_audio for message in messages):
        raise ValueError(
            "this model takes no system prompt together with audio; put its text into the first "
            "user message"
        )
    first_other = next(i for i, role in enumerate(roles) if role != "system")
    if "system" in roles[first_other:]:
        raise ValueError("a system message may only stand at the start of the conversation")


def _turns(messages: Sequence[Message]) -> list[Message]:
    """Join neighbouring messages of one role, and neighbouring texts of a message."""
    turns: list[Message] = []
    for message in messages:
        content: list[str | Clip] = []
        if turns and turns[-1].role == message.role != "system":
            content = list(turns.pop().content)
        for part in message.content:
            if part == "":
                continue
            if content and isinstance(part, str) and isinstance(content[-1], str):
                content[-1] += BETWEEN_TEXTS + part
            else:
                content.append(part)
        turns.append(Message(message.role, tuple(content)))
    return turns


class _Ids:
    """Control ids by name."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer

    def __getitem__(self, name: str) -> int:
        found = self._tokenizer.special_id(name)
        return _FALLBACK_IDS[name] if found is None else found
