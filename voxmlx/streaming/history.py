"""Everything a session wrote, in a form that may grow for days.

Tokens and, where they have text, their rounded log-probabilities are packed in compressed blocks,
about 75 kB an hour of speech. Words and segments are made again from them when somebody asks, by
the same :class:`Transcript` that made the events.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

from voxmlx.generation.row import GeneratedToken
from voxmlx.streaming.timeline import Timeline
from voxmlx.streaming.transcript import Transcript
from voxmlx.tokenizer import Tokenizer
from voxmlx.types import Event

BLOCK = 4096
"""Tokens of a block: 5.5 minutes."""

_SMALLEST = -1e4
"""Smallest log-probability that is told from others; 16-bit floats reach further."""


def rounded(token: GeneratedToken, has_text: bool = True) -> GeneratedToken:
    """The token as :class:`History` keeps it: its log-probability has about three digits.

    That of a token without text is 0, as it says nothing about any word.
    """
    logprob = float(np.float16(min(0.0, max(_SMALLEST, token.logprob)))) if has_text else 0.0
    return GeneratedToken(token.index, token.id, logprob)


class History:
    """Tokens with their log-probabilities, and where the text was made to pause or to end.

    Args:
        keep: Whether to remember anything; a count of the tokens is kept in any case.
    """

    def __init__(self, keep: bool = True):
        self.n_tokens = 0
        self._keep = keep
        self._sealed: list[tuple[bytes, bytes]] = []
        self._ids = np.zeros(BLOCK, np.int32)
        self._logprobs = np.zeros(BLOCK, np.float16)
        self._pauses: list[int] = []
        self._end_s: float | None = None

    @property
    def ids(self) -> list[int]:
        """All token ids so far, a new list."""
        return [token_id for ids, _ in self._blocks() for token_id in ids]

    def add(self, token: GeneratedToken) -> None:
        """Note the next token, a rounded one."""
        if self._keep:
            i = self.n_tokens % BLOCK
            self._ids[i] = token.id
            self._logprobs[i] = token.logprob
            if i == BLOCK - 1:
                arrays = (self._ids, self._logprobs)
                ids, logprobs = (zlib.compress(array.tobytes()) for array in arrays)
                self._sealed.append((ids, logprobs))
        self.n_tokens += 1

    def pause(self) -> None:
        """Note that the text paused here."""
        if self._keep:
            self._pauses.append(self.n_tokens)

    def end(self, end_s: float) -> None:
        """Note that the text ended here, with the audio's end in the time of the stream."""
        self._end_s = end_s

    def replay(self, tokenizer: Tokenizer, timeline: Timeline, token_ms: float) -> list[Event]:
        """All events so far, once more."""
        transcript = Transcript(tokenizer, timeline, token_ms)
        if self._end_s is not None:
            transcript.end(self._end_s)
        events: list[Event] = []
        pauses = set(self._pauses)
        index = 0
        for block in self._blocks():
            for token_id, logprob in zip(*block, strict=True):
                events += transcript.add(GeneratedToken(index, token_id, logprob))
                index += 1
                if index in pauses:
                    events += transcript.pause()
        if self._end_s is not None:
            events += transcript.finalize()
        return events

    def _blocks(self) -> Iterator[tuple[list[int], list[float]]]:
        """Ids and log-probabilities, block by block."""
        for ids, logprobs in self._sealed:
            yield (
                np.frombuffer(zlib.decompress(ids), np.int32).tolist(),
                np.frombuffer(zlib.decompress(logprobs), np.float16).tolist(),
            )
        if self._keep:
            n = self.n_tokens % BLOCK
            yield self._ids[:n].tolist(), self._logprobs[:n].tolist()
