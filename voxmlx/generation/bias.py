"""A logit rule that makes given phrases likelier: names, terms and other words to expect.

The phrases, in every spelling that the text may have, form a trie over tokens. Where a word starts,
the first tokens of phrases are raised a little; once a phrase is in progress, its next token is
raised more. Positions that hold no text are left alone: nothing is raised after a pad, so silence
stays silence and no word comes earlier than the model hears it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from voxmlx.words.characters import is_unspaced

START_BOOST = 2.0
"""What the first token of a phrase gains where a word starts, in logits."""
NEXT_BOOST = 4.0
"""What each further token gains; ``benchmarks/biasing.py`` measures what both find and cost."""

_PAD, _WORD, _TEXT = range(3)
_SPACED, _BARE = range(2)


class Encoder(Protocol):
    """What spelling needs of a tokenizer."""

    pad_id: int
    word_id: int

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""

    def token_bytes(self, token_id: int) -> bytes:
        """Bytes of an id, none for control tokens."""


class BiasState(NamedTuple):
    """Where the phrases stand.

    Attributes:
        nodes: Trie nodes in progress, sorted.
        last: Whether the last token was a pad, a word mark or text.
        empty: Whether there was no text yet.
    """

    nodes: tuple[int, ...]
    last: int
    empty: bool


@dataclass
class _Node:
    """A token sequence that starts at least one phrase.

    ``at_word`` holds the children that may start a word or stand alone, as characters of scripts
    without spaces do; only those may follow a word mark.
    """

    children: dict[int, int] = field(default_factory=dict)
    at_word: set[int] = field(default_factory=set)


class ContextBias:
    """Raise the tokens of phrases; a :class:`voxmlx.generation.rules.LogitRule`.

    Args:
        phrases: What to expect, as it should be spelled. Each is also tried in lower case, in
            capitals, with a capital first letter, and with and without a space before it.
        tokenizer: Spells them.
        strength: Factor of the boosts; more finds more of the phrases, and puts more of them where
            they were not said.

    Raises:
        ValueError: If a phrase is blank, or ``strength`` is not positive.
    """

    def __init__(self, phrases: Iterable[str], tokenizer: Encoder, strength: float = 1.0):
        if not strength > 0:
            raise ValueError(f"bias_strength must be positive, got {strength!r}")
        self._pad, self._word = tokenizer.pad_id, tokenizer.word_id
        self._tokenizer = tokenizer
        self._start, self._next = START_BOOST * strength, NEXT_BOOST * strength
        # Phrases after a space, and phrases where none is due: at the start of the text, and
        # everywhere in scripts without spaces.
        self._nodes = [_Node(), _Node()]
        for phrase in phrases:
            for text in spellings(phrase):
                bare = is_unspaced(text[0])
                self._add(_SPACED, text if bare else f" {text}")
                self._add(_BARE, text)

    @property
    def initial(self) -> BiasState:
        """No text yet."""
        return BiasState((), _PAD, True)

    def next(self, state: BiasState, token_id: int) -> BiasState:
        """Move every phrase in progress on, and start those that begin with ``token_id``."""
        if token_id == self._word:
            return state._replace(last=_WORD)
        if token_id == self._pad or not self._tokenizer.token_bytes(token_id):
            return state._replace(last=_PAD)
        starts = (_SPACED, _BARE) if state.empty else (_SPACED,)
        found = {self._nodes[node].children.get(token_id) for node in (*state.nodes, *starts)}
        live = sorted(node for node in found if node is not None and self._nodes[node].children)
        return BiasState(tuple(live), _TEXT, False)

    def bias(self, state: BiasState) -> Mapping[int, float]:
        """The boosts of the token that follows."""
        if state.last == _PAD:
            return {}
        boosts: dict[int, float] = {}
        if state.last == _WORD:
            for root in (_SPACED, _BARE) if state.empty else (_SPACED,):
                boosts |= dict.fromkeys(self._nodes[root].children, self._start)
        for node in state.nodes:
            tokens = (
                self._nodes[node].children if state.last == _TEXT else self._nodes[node].at_word
            )
            boosts |= dict.fromkeys(tokens, self._next)
        return boosts

    def _add(self, root: int, text: str) -> None:
        node = root
        position = 0
        data = text.encode()
        for token_id in self._tokenizer.encode(text):
            children = self._nodes[node].children
            if token_id not in children:
                children[token_id] = len(self._nodes)
                self._nodes.append(_Node())
            if _stands_alone(data[position:]):
                self._nodes[node].at_word.add(token_id)
            node = children[token_id]
            position += len(self._tokenizer.token_bytes(token_id))


def spellings(phrase: str) -> list[str]:
    """A phrase as given, in lower case, in capitals and with a capital first letter.

    Raises:
        ValueError: If it is blank.
    """
    phrase = " ".join(phrase.split())
    if not phrase:
        raise ValueError("context_bias: a phrase is blank")
    lower = phrase.lower()
    found = (phrase, lower, phrase.upper(), lower[0].upper() + lower[1:], lower.title())
    return list(dict.fromkeys(found))


def context_rules(
    phrases: Sequence[str], tokenizer: Encoder, strength: float = 1.0
) -> list[ContextBias]:
    """The rule for ``phrases``; none if there are none.

    Raises:
        ValueError: See :class:`ContextBias`.
    """
    return [ContextBias(phrases, tokenizer, strength)] if phrases else []


def _stands_alone(data: bytes) -> bool:
    """Whether bytes begin with a space or with a character of a script without spaces."""
    text = data.decode(errors="ignore")
    whole = data[:1] < b"\x80" or data[:1] >= b"\xc0"  # not the middle of a character
    return bool(text) and whole and (text[0] == " " or is_unspaced(text[0]))
