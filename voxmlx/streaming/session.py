"""A live transcription: feed samples, step, read events. No input or output, no threads."""

from __future__ import annotations

import math
import time

import numpy as np

from voxmlx.audio.resample import Resampler
from voxmlx.errors import SessionClosedError
from voxmlx.generation.greedy import GeneratedToken, SpecialIds, TokenStream
from voxmlx.generation.prompt import delay_tokens, right_padding
from voxmlx.models.voxtral_realtime import VoxtralRealtime
from voxmlx.streaming.embedder import AudioEmbedder
from voxmlx.tokenizer import StreamingDetokenizer, Tokenizer
from voxmlx.types import (
    Event,
    Segment,
    SegmentEnd,
    TextDelta,
    Timings,
    Transcription,
    Word,
    WordEnd,
)
from voxmlx.words import Segmenter, WordGrouper

LIVE_ROWS = 25
"""Positions (80 ms) that one encoder call takes at most in a live session: 2 s of lag."""


class StreamingSession:
    """Transcribe one stream of audio.

    Any split of the audio into :meth:`feed` calls gives the same tokens.

    Args:
        model: The network.
        tokenizer: Its tokenizer.
        transcription_delay_ms: How far the text runs behind the audio.
        temperature: 0 takes the likeliest token.
        top_p: Mass of the likeliest tokens to draw from, where ``temperature`` is above 0.
        seed: Seed of the draws.
        encode_rows: Most positions that one encoder call takes.

    Raises:
        ValueError: If the model was not trained for the delay.
    """

    def __init__(
        self,
        model: VoxtralRealtime,
        tokenizer: Tokenizer,
        *,
        transcription_delay_ms: int | None = None,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        encode_rows: int = LIVE_ROWS,
    ):
        config = model.config
        if transcription_delay_ms is None:
            transcription_delay_ms = config.delay_ms
        self.delay_ms = transcription_delay_ms
        self.input_sample_rate = config.audio.sample_rate
        self.tokens: list[int] = []
        self._config = config
        self._n_delay = delay_tokens(transcription_delay_ms, config.audio)
        self._embedder = AudioEmbedder(model, encode_rows)
        ids = SpecialIds(tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id)
        self._stream = TokenStream(model, ids, self._n_delay, temperature, top_p, seed)
        self._detokenizer = StreamingDetokenizer(tokenizer)
        self._grouper = WordGrouper(tokenizer)
        self._segmenter = Segmenter()
        self._resampler: Resampler | None = None
        self._n_samples = 0
        self._closed = False
        self._text: list[str] = []
        self._words: list[Word] = []
        self._segments: list[Segment] = []
        self._encode_s = self._decode_s = 0.0
        self._started_s = time.perf_counter()
        self._first_text_s: float | None = None

    @property
    def done(self) -> bool:
        """Whether every event was returned."""
        return self._closed and not self.pending and self._finalized

    _finalized = False

    @property
    def pending(self) -> bool:
        """Whether a :meth:`step` has work to do."""
        if self._stream.finished:
            return False
        return self._embedder.n_ready > 0 or self._stream.n_ready > 0

    @property
    def duration_s(self) -> float:
        """Audio fed so far."""
        return self._n_samples / self._config.audio.sample_rate

    def feed(self, samples: np.ndarray, sample_rate: int | None = None) -> None:
        """Queue audio for the next :meth:`step`.

        Args:
            samples: Mono PCM, ``(n,)`` float32 in [-1, 1]; ``n`` may be 0.
            sample_rate: Its rate in Hz; ``None`` means ``input_sample_rate``. One rate a session.

        Raises:
            ValueError: If ``samples`` is not one-dimensional float32, or the rate changes.
            SessionClosedError: After :meth:`close`.
        """
        if self._closed:
            raise SessionClosedError("feed() after close(); open a new session")
        if samples.ndim != 1 or samples.dtype != np.float32:
            raise ValueError(f"samples must be (n,) float32, got {samples.shape} {samples.dtype}")
        rate = self._config.audio.sample_rate if sample_rate is None else sample_rate
        if self._resampler is None:
            self._resampler = Resampler(rate, self._config.audio.sample_rate)
            self.input_sample_rate = rate
        elif rate != self.input_sample_rate:
            raise ValueError(f"sample_rate must stay {self.input_sample_rate} Hz, got {rate}")
        self._take(self._resampler.process(samples))

    def close(self) -> None:
        """End the audio; further steps settle the last words."""
        if self._closed:
            return
        if self._resampler is not None:
            self._take(self._resampler.flush())
        self._grouper.duration_s = self.duration_s
        n = right_padding(self._n_samples, self._n_delay, self._config.audio.samples_per_token)
        # One mel window of zeros more completes the last frame without making another position.
        self._embedder.feed(np.zeros(n + self._config.audio.window_size // 2, np.float32))
        self._closed = True

    def step(self, max_positions: int | None = None) -> list[Event]:
        """Do a bounded piece of work and return what it settled.

        Args:
            max_positions: Most positions (80 ms) to decode; ``None`` takes what one encoder call
                brings.
        """
        limit = self._embedder.max_rows if max_positions is None else max_positions
        if self._stream.n_ready < limit and self._embedder.n_ready and not self._stream.finished:
            started = time.perf_counter()
            self._stream.add(self._embedder.encode())
            self._encode_s += time.perf_counter() - started
        started = time.perf_counter()
        tokens = self._stream.step(limit)
        self._decode_s += time.perf_counter() - started
        events = [event for token in tokens for event in self._settle(token)]
        if self._closed and not self.pending and not self._finalized:
            events += self._finalize()
        return events

    def result(self) -> Transcription:
        """Everything settled so far."""
        return Transcription(
            text="".join(self._text),
            tokens=list(self.tokens),
            segments=list(self._segments),
            words=list(self._words),
            duration_s=self.duration_s,
            delay_ms=self.delay_ms,
            timings=Timings(
                audio_s=self.duration_s,
                encode_s=self._encode_s,
                decode_s=self._decode_s,
                first_text_s=self._first_text_s,
                total_s=time.perf_counter() - self._started_s,
                positions=len(self.tokens),
            ),
        )

    def _take(self, samples: np.ndarray) -> None:
        self._n_samples += len(samples)
        self._embedder.feed(samples)

    def _settle(self, token: GeneratedToken) -> list[Event]:
        self.tokens.append(token.id)
        events = self._text_event(self._detokenizer.add_token(token.id))
        confidence = math.exp(token.logprob)
        return events + self._word_events(self._grouper.add(token.index, token.id, confidence))

    def _finalize(self) -> list[Event]:
        self._finalized = True
        events = self._text_event(self._detokenizer.finalize())
        events += self._word_events(self._grouper.finalize(len(self.tokens)))
        return events + self._segment_events(self._segmenter.finalize())

    def _text_event(self, text: str) -> list[Event]:
        if not self._text:
            text = text.lstrip()  # the tokenizer's space before the first word
        if not text:
            return []
        if self._first_text_s is None:
            self._first_text_s = time.perf_counter() - self._started_s
        self._text.append(text)
        return [TextDelta(text)]

    def _word_events(self, words: list[Word]) -> list[Event]:
        events: list[Event] = []
        for word in words:
            self._words.append(word)
            events.append(WordEnd(word))
            events += self._segment_events(self._segmenter.add(word))
        return events

    def _segment_events(self, segments: list[Segment]) -> list[Event]:
        self._segments += segments
        return [SegmentEnd(segment) for segment in segments]
