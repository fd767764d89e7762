"""A live transcription: feed samples, step, read events. No input or output, no threads."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator

import numpy as np

from voxmlx.audio.resample import Resampler
from voxmlx.errors import SessionClosedError
from voxmlx.generation.batch import MAX_STEP
from voxmlx.generation.bias import MAX_AHEAD, make_bias
from voxmlx.generation.prompt import delay_tokens, right_padding
from voxmlx.generation.row import GeneratedToken
from voxmlx.generation.step import replays
from voxmlx.models.voxtral_realtime import VoxtralRealtime
from voxmlx.streaming.backend import Backend, OwnBackend
from voxmlx.streaming.endless import EndlessStream
from voxmlx.streaming.history import History, rounded
from voxmlx.streaming.iterate import iterate, iterate_async
from voxmlx.streaming.opener import TokensOpener
from voxmlx.streaming.options import StreamOptions
from voxmlx.streaming.timeline import Timeline
from voxmlx.streaming.transcript import Transcript
from voxmlx.tokenizer import Tokenizer
from voxmlx.types import (
    Event,
    Flushed,
    SegmentEnd,
    TextDelta,
    Timings,
    TokenScores,
    Transcription,
    WordEnd,
)

LIVE_ROWS = 8
"""Positions (80 ms) that one call of the encoder or the decoder takes at most in a live session.
Rings need room for no more beside their windows, and passes for no more activations."""

GPU_LIVE_ROWS = 2
"""The same on a GPU, where the intermediate arrays of all layers stay until a call is through: at
full size 7 MB a position for the encoder, 16 for the decoder (``benchmarks/memory_live.py``)."""

UNHEARD_WARNING_S = 2.0
"""Audio after the model's own end of the stream that is worth a warning."""

_logger = logging.getLogger(__name__)


class StreamingSession:
    """Transcribe one stream of audio, for as long as it lasts, in constant memory.

    Any split of the audio into :meth:`feed` calls gives the same tokens. One thread at a time may
    use a session.

    Args:
        model: The network.
        tokenizer: Its tokenizer.
        transcription_delay_ms: How far the text runs behind the audio; ``None`` takes the
            model's own.
        options: How to decode.
        encode_rows: Most positions (80 ms) that one encoder call takes, and one decoder pass. A
            session that fell behind catches up with calls of this size. ``None`` takes what live
            audio needs and spares memory.
        backend: Where the work is done, and how its keys and values are held; ``None`` gives the
            session a decoder and an encoder state of its own.

    Raises:
        ValueError: If the model was not trained for the delay.
    """

    def __init__(
        self,
        model: VoxtralRealtime,
        tokenizer: Tokenizer,
        *,
        transcription_delay_ms: int | None = None,
        options: StreamOptions | None = None,
        encode_rows: int | None = None,
        backend: Backend | None = None,
    ):
        config = model.config
        if transcription_delay_ms is None:
            transcription_delay_ms = config.delay_ms
        self.delay_ms = transcription_delay_ms
        self.input_sample_rate = config.audio.sample_rate
        self._options = options = StreamOptions() if options is None else options
        phrases = [*options.context_bias, *options.keywords]
        self._bias = make_bias(phrases, tokenizer, options.bias_strength)
        self._n_spare = 0 if self._bias is None else MAX_AHEAD  # silence to try a last phrase in
        self._model = model
        self._tokenizer = tokenizer
        self._audio = config.audio
        self._n_delay = delay_tokens(transcription_delay_ms, config.audio)
        sparing = encode_rows is None and replays()
        if encode_rows is None:
            encode_rows = GPU_LIVE_ROWS if sparing else LIVE_ROWS
        if backend is None:
            backend = OwnBackend(model, self._options.kv, min(encode_rows, MAX_STEP), sparing)
        self._backend, self._embedder = backend, backend.open_embedder(encode_rows)
        n_left_pad = config.n_left_pad_tokens
        self._n_prompt = 1 + n_left_pad + self._n_delay
        opener = TokensOpener(backend, tokenizer, options, self._n_delay, self._bias)
        self._stream = EndlessStream(opener, n_left_pad, self._n_delay, options.on_eos)
        self._timeline = Timeline()
        self._transcript = Transcript(tokenizer, self._timeline, config.audio.token_ms)
        self._history = History(self._options.keep_history)
        self._resampler: Resampler | None = None
        self._n_audio = 0  # samples of audio, at the model's rate
        self._n_stream = 0  # the same with the silence of flushes
        self._n_encoded = 0  # positions
        self._n_flushed = 0  # value of _n_audio at the last flush
        self._flushes: deque[tuple[int, float]] = deque()  # tokens that settle a flush, its time
        self._end_s = 0.0
        self._closed = False
        self._finalized = False
        self._warned = False
        self._encode_s = self._decode_s = 0.0
        self._started_s = time.perf_counter()
        self._first_text_s: float | None = None

    @property
    def tokens(self) -> list[int]:
        """Every id so far, from the first output position on; a new list at each call."""
        return self._history.ids

    @property
    def done(self) -> bool:
        """Whether the session is closed and every event was returned."""
        return self._finalized

    @property
    def pending(self) -> bool:
        """Whether a :meth:`step` has work to do on the audio fed so far."""
        if self._finalized or self._stream.finished:
            return bool(self._flushes) or (self._closed and not self._finalized)
        return self._embedder.n_ready > 0 or self._stream.n_ready > 0 or self._closed

    @property
    def closed(self) -> bool:
        """Whether the audio has ended."""
        return self._closed

    @property
    def flushing(self) -> bool:
        """Whether a :meth:`flush` is not settled yet."""
        return bool(self._flushes)

    @property
    def ended(self) -> bool:
        """Whether the model ended the stream for good; audio that comes now is not heard."""
        return self._stream.finished

    @property
    def n_restarts(self) -> int:
        """How often the model ended the stream and was restarted."""
        return self._stream.n_restarts

    @property
    def duration_s(self) -> float:
        """Audio fed so far."""
        return self._n_audio / self._audio.sample_rate

    @property
    def settled_s(self) -> float:
        """No word that is still to come ends before this time of the audio."""
        return self._transcript.settled_s

    @property
    def lag_s(self) -> float:
        """Audio fed and not decoded yet; less than 0.0825 s of it must wait for more audio."""
        if self.ended:
            return 0.0
        n_heard = self._stream.n_heard
        if n_heard == 0 and self._stream.n_ready == 0:
            n_heard = self._n_encoded  # the prompt waits for audio, not for work
        heard = n_heard * self._audio.samples_per_token
        left = self._model.config.n_left_pad_tokens * self._audio.samples_per_token
        return max(0, self._n_stream - max(0, heard - left)) / self._audio.sample_rate

    @property
    def timings(self) -> Timings:
        """Where the time went so far."""
        return Timings(
            audio_s=self.duration_s,
            encode_s=self._encode_s,
            decode_s=self._decode_s,
            first_text_s=self._first_text_s,
            total_s=time.perf_counter() - self._started_s,
            passes=self._stream.n_passes,
            positions=self._history.n_tokens,
        )

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
        if self._resampler is None:
            rate = self.input_sample_rate if sample_rate is None else sample_rate
            self._resampler = Resampler(rate, self._audio.sample_rate)
            self.input_sample_rate = rate
        elif sample_rate is not None and sample_rate != self.input_sample_rate:
            raise ValueError(
                f"sample_rate must stay {self.input_sample_rate} Hz, got {sample_rate}"
            )
        self._take(self._resampler.process(samples))

    def flush(self) -> None:
        """Settle what was said so far without ending the session.

        Silence is put into the stream after the audio so far: up to a whole position (80 ms), then
        the delay and 11 positions more. So the ids are those of a recording that holds this
        silence, one for each of its positions; times of words skip it, and text after it goes
        on as after a pause. A :class:`Flushed` event follows the last word. Without new audio since
        the last flush nothing happens.

        Raises:
            SessionClosedError: After :meth:`close`.
        """
        if self._closed:
            raise SessionClosedError("flush() after close(); open a new session")
        self._drain_resampler()
        if self._n_audio == self._n_flushed:
            return
        self._pad()
        # The last position lacks the samples that its last mel window reaches beyond it.
        n_positions = self._n_stream // self._audio.samples_per_token - 1
        n_positions += self._model.config.n_left_pad_tokens - self._n_spare
        self._flushes.append((n_positions - self._n_prompt + 1, self.duration_s))

    def close(self) -> None:
        """End the audio; further steps settle the last words."""
        if self._closed:
            return
        self._drain_resampler()
        self._end_s = self._n_stream / self._audio.sample_rate
        self._transcript.end(self._end_s)
        n_positions = math.ceil(self._n_stream / self._audio.samples_per_token)
        self._stream.end = self._model.config.n_left_pad_tokens + n_positions
        if self._n_audio != self._n_flushed or not self._n_stream:
            self._pad()
        # Half a mel window of zeros completes the last frame without making another position.
        self._embedder.feed(np.zeros(self._audio.window_size // 2, np.float32))
        self._closed = True
        self._warn_unheard()

    def step(self, max_positions: int | None = None) -> list[Event]:
        """Do a bounded piece of work and return what it settled.

        Args:
            max_positions: Most positions (80 ms) to decode; ``None`` takes what one encoder call
                brings.
        """
        limit = self._embedder.max_rows if max_positions is None else max_positions
        if self._stream.n_ready < limit:
            self.encode()
        started = time.perf_counter()
        tokens = self._stream.step(limit)
        self._decode_s += time.perf_counter() - started
        events = [event for token in tokens for event in self._settle(token)]
        if self._stream.finished:
            self._embedder.drop()
            events += self._settle_flushes(None)
            self._warn_unheard()
        nothing_left = self._stream.n_ready == 0 and self._embedder.n_ready == 0
        if self._closed and nothing_left and not self._finalized:
            self._finalized = True
            self._history.end(self._end_s)
            events += self._transcript.finalize()
        if self._first_text_s is None and any(isinstance(e, TextDelta) for e in events):
            self._first_text_s = time.perf_counter() - self._started_s
        return events

    def encode(self) -> None:
        """Do the first part of :meth:`step` alone: bring embeddings to the decoder."""
        if not self._embedder.n_ready or self._stream.finished:
            return
        started = time.perf_counter()
        embeddings = self._embedder.encode()
        self._n_encoded += embeddings.shape[1]
        self._stream.add(embeddings)
        self._encode_s += time.perf_counter() - started

    def events(
        self, source: Iterable[np.ndarray], sample_rate: int | None = None
    ) -> Iterator[Event]:
        """Run over audio that a loop gives; see :func:`voxmlx.streaming.iterate.iterate`."""
        return iterate(self, source, sample_rate)

    def events_async(
        self,
        source: AsyncIterable[np.ndarray] | Iterable[np.ndarray],
        sample_rate: int | None = None,
    ) -> AsyncIterator[Event]:
        """Do the same beside other tasks: :func:`voxmlx.streaming.iterate.iterate_async`."""
        return iterate_async(self, source, sample_rate)

    def result(self) -> Transcription:
        """Everything settled so far. It is made anew from the tokens, at each call."""
        token_ms = self._audio.token_ms
        events = self._history.replay(self._tokenizer, self._timeline, token_ms)
        return Transcription(
            text="".join(e.text for e in events if isinstance(e, TextDelta)),
            tokens=self.tokens,
            segments=[e.segment for e in events if isinstance(e, SegmentEnd)],
            words=[e.word for e in events if isinstance(e, WordEnd)],
            duration_s=self.duration_s,
            delay_ms=self.delay_ms,
            timings=self.timings,
        )

    def _drain_resampler(self) -> None:
        if self._resampler is not None:
            self._take(self._resampler.flush())

    def _take(self, samples: np.ndarray) -> None:
        """Count audio and pass it on, unless nobody will hear it."""
        self._n_audio += len(samples)
        self._n_stream += len(samples)
        if self._stream.finished:
            self._warn_unheard()
        else:
            self._embedder.feed(samples)

    def _pad(self) -> None:
        """Put silence into the stream, so that everything before it falls due."""
        per_token = self._audio.samples_per_token
        n = right_padding(self._n_stream, self._n_delay, per_token) + self._n_spare * per_token
        rate = self._audio.sample_rate
        self._timeline.insert(self._n_stream / rate, n / rate)
        self._embedder.feed(np.zeros(n, np.float32))
        self._n_stream += n
        self._n_flushed = self._n_audio

    def _settle(self, token: GeneratedToken) -> list[Event]:
        events: list[Event] = []
        if self._options.top_logprobs is not None:
            events.append(TokenScores(token.index, token.id, token.logprob, token.alternatives))
        token = rounded(token, bool(self._tokenizer.token_bytes(token.id)))
        self._history.add(token)
        events += self._transcript.add(token)
        return events + self._settle_flushes(token.index + 1)

    def _settle_flushes(self, n_tokens: int | None) -> list[Event]:
        """End flushes that ``n_tokens`` settle; ``None`` settles all of them."""
        events: list[Event] = []
        while self._flushes and (n_tokens is None or self._flushes[0][0] <= n_tokens):
            _, end_s = self._flushes.popleft()
            self._history.pause()
            events += [*self._transcript.pause(), Flushed(end_s)]
        return events

    def _warn_unheard(self) -> None:
        """Say once that the model ended the stream long before the audio did."""
        heard_s = self._stream.n_tokens * self._audio.token_ms / 1000
        end_s = self._end_s if self._closed else self._n_stream / self._audio.sample_rate
        left_s = end_s - heard_s
        if self.ended and not self._warned and left_s > UNHEARD_WARNING_S:
            self._warned = True
            _logger.warning(
                "the model ended the stream at %.1f s and audio goes on; "
                "on_eos='restart' transcribes the rest",
                heard_s,
            )
