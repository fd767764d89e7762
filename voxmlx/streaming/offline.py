"""A transcription by the offline model, with the same calls as a live session.

Audio is gathered into windows that fit the model's context; each is decoded as a whole, and the
texts are joined on the words that neighbouring windows share. The model writes no times: a segment
is one window, with the window's span.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from voxmlx.config import KVCacheConfig, kv_cache_config
from voxmlx.errors import SessionClosedError
from voxmlx.generation.chat_prompt import Clip, check_language, transcription_prompt
from voxmlx.generation.offline_text import TextDecoder, TextOptions
from voxmlx.models.voxtral import Voxtral
from voxmlx.tokenizer import StreamingDetokenizer, Tokenizer
from voxmlx.types import Event, Segment, SegmentEnd, TextDelta, Timings, Transcription
from voxmlx.words.overlap import OverlapJoiner

WINDOW_S = 1800.0
"""Longest recording transcribed at once (30 minutes, the released model's card)."""

OVERLAP_S = 15.0
"""What neighbouring windows share; a quarter of the window if that is less."""

AUDIO_SHARE = 0.7
"""Part of the context that audio may take: 30 minutes of the released model leave 10000 tokens for
their text, of which fast speech needs 8000."""

STEP_TOKENS = 16
"""Tokens decoded by one :meth:`OfflineSession.step`."""

TOKENS_PER_S, TOKENS_MORE = 25.0, 200
"""Most text of a window: far above any speech, so that a text that repeats for ever ends."""

N_LIKELY = 200
"""Tokens of the last window's text that the next one may begin with."""


_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OfflineOptions:
    """How a recording is transcribed.

    Attributes:
        language: Its language, one of :data:`voxmlx.generation.chat_prompt.LANGUAGES`; ``None``
            lets the model find it.
        window_s: Longest audio decoded at once; ``None`` takes as much as fits, 30 minutes at most.
        max_tokens: Most tokens of one window; ``None`` allows far more than anyone can say.
        temperature: 0 takes the likeliest token.
        top_p: Mass of the likeliest tokens to draw from, where ``temperature`` is above 0.
        seed: Seed of the draws.
        kv_bits: Bits of a stored key or value, 2, 3, 4 or 8; ``None`` keeps them as they are.
        kv_rotation: What goes before the rounding: ``none``, ``planar``, ``iso`` or ``hadamard``.
    """

    language: str | None = None
    window_s: float | None = None
    max_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    kv_bits: int | None = None
    kv_rotation: str = "hadamard"

    def __post_init__(self) -> None:
        """Check the values."""
        check_language(self.language)
        self.text_options()
        kv_cache_config(self.kv_bits, self.kv_rotation)

    @property
    def kv(self) -> KVCacheConfig | None:
        """How the decoder's keys and values are compressed."""
        return kv_cache_config(self.kv_bits, self.kv_rotation)

    def text_options(self, window_s: float = 0.0, likely: Sequence[int] = ()) -> TextOptions:
        """Options of one window of that length."""
        limit = round(TOKENS_PER_S * window_s) + TOKENS_MORE
        if self.max_tokens is not None:
            limit = self.max_tokens
        return TextOptions(limit, self.temperature, self.top_p, self.seed, likely_text=likely)


class OfflineSession:
    """Transcribe one recording.

    Args:
        model: The network.
        tokenizer: Its tokenizer.
        open_decoder: Gives a context that nobody is using, with keys and values held in the given
            way; called for every window.
        options: How to decode.

    Raises:
        ValueError: If the window does not fit into the context.
    """

    delay_ms = None
    lag_s = 0.0  # nothing waits for more audio than its own window

    def __init__(
        self,
        model: Voxtral,
        tokenizer: Tokenizer,
        open_decoder: Callable[[KVCacheConfig | None], TextDecoder],
        options: OfflineOptions,
    ):
        self.input_sample_rate = model.config.audio.sample_rate
        self.tokens: list[int] = []
        self._model = model
        self._tokenizer = tokenizer
        self._open_decoder = open_decoder
        self._options = options
        self._n_window = window_samples(model, open_decoder(options.kv).context, options.window_s)
        self._n_overlap = min(round(OVERLAP_S * self.input_sample_rate), self._n_window // 4)
        self._parts: list[np.ndarray] = []
        self._n_held = 0
        self._n_samples = 0
        self._closed = self._finished = False
        self._running: Iterator[list[Event]] | None = None
        self._joiner = OverlapJoiner()
        self._text: list[str] = []
        self._spans: list[tuple[float, float]] = []
        self._segments: list[Segment] = []
        self._last_ids: list[int] = []
        self._encode_s = self._decode_s = 0.0
        self._n_passes = 0
        self._started_s = time.perf_counter()
        self._first_text_s: float | None = None

    @property
    def duration_s(self) -> float:
        """Audio fed so far."""
        return self._n_samples / self.input_sample_rate

    @property
    def pending(self) -> bool:
        """Whether a :meth:`step` has work to do."""
        waits = self._n_held > self._n_window or (self._closed and not self._finished)
        return self._running is not None or waits

    @property
    def done(self) -> bool:
        """Whether every event was returned."""
        return self._finished

    def feed(self, samples: np.ndarray, sample_rate: int | None = None) -> None:
        """Queue audio.

        Args:
            samples: Mono PCM, ``(n,)`` float32 in [-1, 1]; ``n`` may be 0.
            sample_rate: Its rate in Hz, which must be the model's.

        Raises:
            ValueError: If ``samples`` is not one-dimensional float32, or has another rate.
            SessionClosedError: After :meth:`close`.
        """
        if self._closed:
            raise SessionClosedError("feed() after close(); open a new session")
        if samples.ndim != 1 or samples.dtype != np.float32:
            raise ValueError(f"samples must be (n,) float32, got {samples.shape} {samples.dtype}")
        if sample_rate not in (None, self.input_sample_rate):
            raise ValueError(f"sample_rate must be {self.input_sample_rate} Hz, got {sample_rate}")
        self._parts.append(samples)
        self._n_held += len(samples)
        self._n_samples += len(samples)

    def close(self) -> None:
        """End the audio; further steps give its text."""
        self._closed = True

    def step(self, max_tokens: int = STEP_TOKENS) -> list[Event]:
        """Do a bounded piece of work and return what it settled.

        Args:
            max_tokens: Most tokens to decode; the first of a window takes its whole prompt.
        """
        if self._running is None and self.pending:
            self._running = self._transcribe(self._pop_window())
        events: list[Event] = []
        for _ in range(max_tokens):
            if self._running is None:
                break
            new = next(self._running, None)
            if new is None:
                self._running = None
                self._finished = self._closed and self._n_held == 0
            else:
                events += new
        return events

    def result(self) -> Transcription:
        """Everything settled so far.

        Its tokens are those of every window, the shared seconds twice, each with its end mark.
        """
        return Transcription(
            text="".join(self._text),
            tokens=list(self.tokens),
            segments=list(self._segments),
            words=[],
            duration_s=self.duration_s,
            language=self._options.language,
            timings=Timings(
                audio_s=self.duration_s,
                encode_s=self._encode_s,
                decode_s=self._decode_s,
                first_text_s=self._first_text_s,
                total_s=time.perf_counter() - self._started_s,
                passes=self._n_passes,
                positions=len(self.tokens),
            ),
        )

    def _pop_window(self) -> np.ndarray:
        """The next window's samples; the last seconds stay where another one follows."""
        audio = np.concatenate([np.zeros(0, np.float32), *self._parts])
        window = audio[: self._n_window]
        more = len(audio) > self._n_window
        rest = audio[self._n_window - self._n_overlap :] if more else audio[:0]
        self._parts, self._n_held = [rest], len(rest)
        self._joiner.start(more)
        self._spans.append(self._span(len(window), len(rest)))
        return window

    def _span(self, n_window: int, n_rest: int) -> tuple[float, float]:
        """The window's part of the recording; shared seconds are halved."""
        end = self._n_samples - max(0, n_rest - self._n_overlap)
        start = end - n_window
        half = self._n_overlap // 2
        start += half if len(self._spans) else 0
        end -= half if n_rest else 0
        return start / self.input_sample_rate, end / self.input_sample_rate

    def _transcribe(self, samples: np.ndarray) -> Iterator[list[Event]]:
        """Decode one window, token by token."""
        if len(samples):
            yield from self._decode(samples)
        events = self._settle(self._joiner.end())
        if self._closed and self._n_held == 0:
            events += self._end_segments(len(self._spans))
        yield events

    def _decode(self, samples: np.ndarray) -> Iterator[list[Event]]:
        model, decoder = self._model, self._open_decoder(self._options.kv)
        clip = Clip(samples, model.chunk_samples, model.chunk_tokens)
        prompt = transcription_prompt(self._tokenizer, clip, self._options.language)
        window_s = len(samples) / self.input_sample_rate
        options = self._options.text_options(window_s, self._last_ids[-N_LIKELY:])
        detokenizer = StreamingDetokenizer(self._tokenizer)
        before = decoder.encode_s, decoder.decode_s, decoder.n_passes
        self._last_ids = []
        for token in decoder.generate(prompt, options):
            self.tokens.append(token)
            if token != self._tokenizer.eos_id:
                self._last_ids.append(token)
            yield self._settle(self._joiner.add(detokenizer.add_token(token)))
        if self.tokens[-1] != self._tokenizer.eos_id and self._options.max_tokens is None:
            _logger.warning(
                "%.0f s of audio: the text did not end within %d tokens",
                window_s,
                len(self._last_ids),
            )
        self._encode_s += decoder.encode_s - before[0]
        self._decode_s += decoder.decode_s - before[1]
        self._n_passes += decoder.n_passes - before[2]
        yield self._settle(self._joiner.add(detokenizer.finalize()))

    def _settle(self, text: str) -> list[Event]:
        if not self._text:
            text = text.lstrip()
        events: list[Event] = []
        if text:
            if self._first_text_s is None:
                self._first_text_s = time.perf_counter() - self._started_s
            self._text.append(text)
            events.append(TextDelta(text))
        return events + self._end_segments(self._joiner.n_settled)

    def _end_segments(self, n: int) -> list[Event]:
        """Segments of the windows before ``n`` that were not given yet and hold text."""
        events: list[Event] = []
        for window in range(self._n_segmented, n):
            text = self._joiner.parts[window].strip()
            if text:
                self._segments.append(Segment(text, *self._spans[window]))
                events.append(SegmentEnd(self._segments[-1]))
        self._n_segmented = max(self._n_segmented, n)
        return events

    _n_segmented = 0


def window_samples(model: Voxtral, context: int, window_s: float | None) -> int:
    """Samples of one window: whole chunks, as many as wanted or as fit.

    Raises:
        ValueError: If ``window_s`` is under a second or more than fits.
    """
    sample_rate, per_chunk = model.config.audio.sample_rate, model.chunk_samples
    n_chunks = max(1, int(AUDIO_SHARE * context) // model.chunk_tokens)
    longest = min(n_chunks * per_chunk, round(WINDOW_S * sample_rate))
    if window_s is None:
        return longest
    if not 1 <= window_s <= longest / sample_rate:
        raise ValueError(f"window_s must be 1 to {longest / sample_rate:g}, got {window_s!r}")
    return round(window_s * sample_rate)
