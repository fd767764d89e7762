"""Phrases to expect: names, terms and other words that the model should prefer where they fit.

Where a word starts, each phrase that may begin there is placed ahead as a whole and scored on the
sound itself (:mod:`voxmlx.generation.trial`). It is written only if what it lacks, summed over its
tokens, stays within a budget that grows with its length. Raising the logits of a phrase's tokens
one by one instead finds half as much and breaks other words: a first token says little, and what is
written cannot be taken back (``benchmarks/biasing.py``).

All is a function of the tokens so far. Nothing starts after a pad, so silence stays silence and no
word comes earlier than the model hears it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from voxmlx.words.characters import is_unspaced

BUDGET = 1.75
"""What a phrase may lack, in logits, times the geometric mean of its tokens and characters: that
told said from unsaid phrases better than either number alone."""
START_BUDGET = 5.0
"""What its first token may lack, in logits: it decides whether a phrase is tried at all."""
MAX_AHEAD = 7
"""Tokens that are placed ahead at most: a pass of 8 positions."""

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


class Piece(NamedTuple):
    """A part of a phrase that is tried as a whole.

    Attributes:
        tokens: Its ids.
        budget: What they may lack in all.
        closed: Whether a word must end behind them.
    """

    tokens: tuple[int, ...]
    budget: float
    closed: bool


@dataclass
class _Node:
    """A token sequence that starts at least one phrase.

    Attributes:
        children: Nodes by the token that follows.
        at_word: Tokens that may start a word or stand alone, as characters of scripts without
            spaces do; only those may follow a word mark.
        pieces: What may follow where a piece ends here, by first token.
    """

    children: dict[int, int] = field(default_factory=dict)
    at_word: set[int] = field(default_factory=set)
    pieces: dict[int, set[Piece]] = field(default_factory=dict)


class ContextBias:
    """Phrases that a row of a decoder tries where they may start.

    Args:
        phrases: What to expect, as it should be spelled. Each is also tried in lower case, in
            capitals, with a capital first letter, and with and without a space before it.
        tokenizer: Spells them.
        strength: Factor of the budgets; more finds more of the phrases, and puts more of them where
            they were not said.

    Raises:
        ValueError: If a phrase is blank, or ``strength`` is not positive.
    """

    def __init__(self, phrases: Iterable[str], tokenizer: Encoder, strength: float = 1.0):
        if not strength > 0:
            raise ValueError(f"bias_strength must be positive, got {strength!r}")
        self.start_budget = START_BUDGET * strength
        self._budget = BUDGET * strength
        self._pad, self._word = tokenizer.pad_id, tokenizer.word_id
        self._tokenizer = tokenizer
        # Phrases after a space, and phrases where none is due: at the start of the text, and
        # everywhere in scripts without spaces.
        self._nodes = [_Node(), _Node()]
        for phrase in phrases:
            for text in spellings(phrase):
                bare = is_unspaced(text[0])
                self._add(_SPACED, text if bare else f" {text}")
                self._add(_BARE, text)
        self._starts: dict[BiasState, dict[int, tuple[Piece, ...]]] = {}

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

    def starts(self, state: BiasState) -> Mapping[int, Sequence[Piece]]:
        """Pieces that may come next, by their first token; empty means free."""
        if state.last == _PAD:
            return {}
        known = self._starts.get(state)
        if known is None:
            known = self._starts[state] = self._find_starts(state)
        return known

    def ends_word(self, token_id: int) -> bool:
        """Whether a word ends before a token: it is no text, or starts with no letter."""
        data = self._tokenizer.token_bytes(token_id)
        return not data or not (data[:1].isalnum() or data[:1] >= b"\x80")

    def _find_starts(self, state: BiasState) -> dict[int, tuple[Piece, ...]]:
        roots = (_SPACED, _BARE) if state.empty else (_SPACED,)
        found: dict[int, set[Piece]] = {}
        for index in (*roots, *state.nodes):
            node = self._nodes[index]
            for token_id, pieces in node.pieces.items():
                # A mark comes before words and lone characters; without one, text that goes on
                # starts a word only with a space.
                if state.last == _WORD and index not in roots and token_id not in node.at_word:
                    continue
                if state.last == _TEXT and index in roots and token_id not in node.at_word:
                    continue
                found.setdefault(token_id, set()).update(pieces)
        return {token_id: tuple(sorted(pieces)) for token_id, pieces in found.items()}

    def _add(self, root: int, text: str) -> None:
        """Add a spelling to the trie, cut into pieces before every token that starts a word."""
        data = text.encode()
        ids = self._tokenizer.encode(text)
        ends = [0]
        for token_id in ids:
            ends.append(ends[-1] + len(self._tokenizer.token_bytes(token_id)))
        node, first, start = root, 0, root
        for i, token_id in enumerate(ids):
            lone = _stands_alone(data[ends[i] :])
            if i and (lone or i - first == MAX_AHEAD):
                self._put_piece(start, ids[first:i], data[ends[first] : ends[i]], lone)
                first, start = i, node
            children = self._nodes[node].children
            if token_id not in children:
                children[token_id] = len(self._nodes)
                self._nodes.append(_Node())
            if lone:
                self._nodes[node].at_word.add(token_id)
            node = children[token_id]
        self._put_piece(start, ids[first:], data[ends[first] :], True)

    def _put_piece(self, node: int, ids: Sequence[int], data: bytes, word_ends: bool) -> None:
        text = data.decode(errors="ignore").strip()
        closed = word_ends and not any(map(is_unspaced, text))
        budget = self._budget * math.sqrt(len(ids) * max(1, len(text)))
        piece = Piece(tuple(ids), budget, closed)
        self._nodes[node].pieces.setdefault(ids[0], set()).add(piece)


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


def make_bias(
    phrases: Sequence[str], tokenizer: Encoder, strength: float = 1.0
) -> ContextBias | None:
    """The phrases for a row; ``None`` if there are none.

    Raises:
        ValueError: See :class:`ContextBias`.
    """
    return ContextBias(phrases, tokenizer, strength) if phrases else None


def _stands_alone(data: bytes) -> bool:
    """Whether bytes begin with a space or with a character of a script without spaces."""
    text = data.decode(errors="ignore")
    whole = data[:1] < b"\x80" or data[:1] >= b"\xc0"  # not the middle of a character
    return bool(text) and whole and (text[0] == " " or is_unspaced(text[0]))
