"""From decoded tokens to text, words and segments, as events. It knows no audio and no model."""

from __future__ import annotations

import math

from voxmlx.generation.row import GeneratedToken
from voxmlx.streaming.timeline import Timeline
from voxmlx.tokenizer import StreamingDetokenizer, Tokenizer
from voxmlx.types import Event, Segment, SegmentEnd, TextDelta, Word, WordEnd
from voxmlx.words import Segmenter, WordGrouper


class Transcript:
    """The text side of one stream: each token gives the events that it settled.

    Args:
        tokenizer: Gives the bytes of ids.
        timeline: Maps times of the stream to times of the audio.
        token_ms: Milliseconds between tokens.
    """

    def __init__(self, tokenizer: Tokenizer, timeline: Timeline, token_ms: float):
        self._tokenizer = tokenizer
        self._timeline = timeline
        self._detokenizer = StreamingDetokenizer(tokenizer, keep_text=False)
        self._grouper = WordGrouper(tokenizer, token_ms)
        self._segmenter = Segmenter()
        self._started = False
        self._last_id: int | None = None

    @property
    def settled_s(self) -> float:
        """No word that is still to come ends before this time of the audio."""
        return self._timeline.audio_s(self._grouper.settled_s)

    def add(self, token: GeneratedToken) -> list[Event]:
        """Take the next token."""
        self._last_id = token.id
        events = self._text(self._detokenizer.add_token(token.id))
        events += self._words(self._grouper.add(token.index, token.id, math.exp(token.logprob)))
        return events + self._segments(self._segmenter.advance(self.settled_s))

    def pause(self) -> list[Event]:
        """End the open word and segment, unless the model is still writing; more may follow."""
        if self._last_id is None or self._tokenizer.token_bytes(self._last_id):
            return []
        return self._words(self._grouper.finalize()) + self._segments(self._segmenter.finalize())

    def end(self, end_s: float) -> None:
        """Note the end of the audio in the time of the stream: no word ends later."""
        self._grouper.duration_s = end_s

    def finalize(self) -> list[Event]:
        """End the text."""
        events = self._text(self._detokenizer.finalize())
        events += self._words(self._grouper.finalize())
        return events + self._segments(self._segmenter.finalize())

    def _text(self, text: str) -> list[Event]:
        if not self._started:
            text = text.lstrip()  # the tokenizer's space before the first word
        self._started = self._started or bool(text)
        return [TextDelta(text)] if text else []

    def _words(self, words: list[Word]) -> list[Event]:
        events: list[Event] = []
        for word in words:
            start_s, end_s = map(self._timeline.audio_s, (word.start_s, word.end_s))
            word = Word(word.text, start_s, end_s, word.confidence, word.space_before)
            events.append(WordEnd(word))
            events += self._segments(self._segmenter.add(word))
        return events

    def _segments(self, segments: list[Segment]) -> list[Event]:
        return [SegmentEnd(segment) for segment in segments]
