"""Everything a session wrote, in a form that may grow for days.

Eight bytes a token, 360 kB an hour; words and segments are made again from the tokens when somebody
asks, by the same :class:`Transcript` that made the events.
"""

from __future__ import annotations

from array import array

from voxmlx.generation.row import GeneratedToken
from voxmlx.streaming.timeline import Timeline
from voxmlx.streaming.transcript import Transcript
from voxmlx.tokenizer import Tokenizer
from voxmlx.types import Event


class History:
    """Tokens with their log-probabilities, and where the text was made to pause or to end.

    Args:
        keep: Whether to remember anything; a count of the tokens is kept in any case.
    """

    def __init__(self, keep: bool = True):
        self.n_tokens = 0
        self._keep = keep
        self._ids = array("i")
        self._logprobs = array("f")
        self._pauses: list[int] = []
        self._end_s: float | None = None

    @property
    def ids(self) -> list[int]:
        """All token ids so far, a new list."""
        return self._ids.tolist()

    def add(self, token: GeneratedToken) -> None:
        """Note the next token."""
        self.n_tokens += 1
        if self._keep:
            self._ids.append(token.id)
            self._logprobs.append(token.logprob)

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
        for index, (token_id, logprob) in enumerate(zip(self._ids, self._logprobs, strict=True)):
            events += transcript.add(GeneratedToken(index, token_id, logprob))
            if index + 1 in pauses:
                events += transcript.pause()
        if self._end_s is not None:
            events += transcript.finalize()
        return events
