"""The public object of the offline model: it transcribes recordings and answers about them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, overload

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from voxmlx.audio.decode import AudioSource, open_audio, read_audio
from voxmlx.config import KVCacheConfig, ModelConfig, kv_cache_config
from voxmlx.generation.chat_prompt import Clip, Prompt, chat_prompt, transcription_prompt
from voxmlx.generation.messages import parse_messages
from voxmlx.generation.offline_text import TextDecoder, TextOptions
from voxmlx.models.voxtral import CONTEXT, Voxtral
from voxmlx.streaming.iterate import iterate
from voxmlx.streaming.offline import OfflineOptions, OfflineSession
from voxmlx.tokenizer import StreamingDetokenizer, Tokenizer
from voxmlx.types import Answer, TextDelta, Timings, Transcription

MAX_ANSWER_TOKENS = 1024
"""Tokens of an answer where the caller sets no limit."""


class OfflinePipeline:
    """Voxtral-Mini-3B with its tokenizer.

    One context is kept from call to call: a conversation that goes on, or a question about the
    recording transcribed last, starts where the earlier prompt ended.

    Args:
        model: The network.
        tokenizer: Its tokenizer.
        context: Most positions of one prompt with its text.
    """

    def __init__(
        self,
        model: Voxtral,
        tokenizer: Tokenizer,
        context: int = CONTEXT,
    ):
        self.model = model
        self.tokenizer = tokenizer
        self.context = context
        self._decoder: TextDecoder | None = None

    @property
    def config(self) -> ModelConfig:
        """Numbers of the model."""
        return self.model.config

    def clear(self) -> None:
        """Forget the context and give its memory back."""
        self._decoder = None

    def file_session(
        self, *, transcription_delay_ms: None = None, **options: Any
    ) -> OfflineSession:
        """Open a session that takes audio piece by piece and decodes it window by window.

        Args:
            transcription_delay_ms: This model has none.
            options: Fields of :class:`voxmlx.streaming.offline.OfflineOptions`.

        Raises:
            ValueError: If an option has no such value, or a delay is given.
        """
        if transcription_delay_ms is not None:
            raise ValueError(
                "transcription_delay_ms is for realtime models; this one reads whole recordings, "
                f"got {transcription_delay_ms!r}"
            )
        known = [field.name for field in dataclasses.fields(OfflineOptions)]
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise ValueError(f"this model has no option {unknown[0]!r}; it has {', '.join(known)}")
        return OfflineSession(
            self.model, self.tokenizer, self._free_decoder, OfflineOptions(**options)
        )

    @overload
    def generate(
        self, audio: AudioSource, *, stream: Literal[False] = False, **options: Any
    ) -> Transcription: ...

    @overload
    def generate(
        self, audio: AudioSource, *, stream: Literal[True], **options: Any
    ) -> Iterator[str]: ...

    def generate(
        self,
        audio: AudioSource,
        *,
        sample_rate: int | None = None,
        stream: bool = False,
        **options: Any,
    ) -> Transcription | Iterator[str]:
        """Transcribe a recording of any length.

        Args:
            audio: A path, ``-`` for standard input, encoded bytes, a binary file object, or an
                array of samples, ``(n,)`` or ``(n, channels)``.
            sample_rate: Rate of an array in Hz.
            stream: Return an iterator over new text instead of the whole result.
            options: ``language``, ``window_s``, ``max_tokens``, ``temperature``, ``top_p``,
                ``seed``, ``kv_bits``, ``kv_rotation``: see
                :class:`voxmlx.streaming.offline.OfflineOptions`.

        Returns:
            The transcription, or with ``stream`` an iterator of ``str``. The model writes no times:
            there are no words, and one segment for each window of 30 minutes.

        Raises:
            AudioError: If the recording cannot be read.
            ValueError: If an option has no such value.
        """
        session = self.file_session(**options)
        reader = open_audio(audio, sample_rate)
        events = (event for event in iterate(session, reader) if isinstance(event, TextDelta))
        if stream:
            return (event.text for event in events)
        for _ in events:
            pass
        return session.result()

    @overload
    def chat(
        self,
        messages: Iterable[Mapping[str, Any]],
        *,
        max_tokens: int = ...,
        temperature: float = ...,
        top_p: float = ...,
        seed: int = ...,
        kv_bits: int | None = ...,
        kv_rotation: str = ...,
        stream: Literal[False] = False,
    ) -> Answer: ...

    @overload
    def chat(
        self,
        messages: Iterable[Mapping[str, Any]],
        *,
        max_tokens: int = ...,
        temperature: float = ...,
        top_p: float = ...,
        seed: int = ...,
        kv_bits: int | None = ...,
        kv_rotation: str = ...,
        stream: Literal[True],
    ) -> Iterator[str]: ...

    def chat(
        self,
        messages: Iterable[Mapping[str, Any]],
        *,
        max_tokens: int = MAX_ANSWER_TOKENS,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        kv_bits: int | None = None,
        kv_rotation: str = "hadamard",
        stream: bool = False,
    ) -> Answer | Iterator[str]:
        """Answer the last message of a conversation.

        Args:
            messages: ``{"role": "user", "content": [...]}``; the content is a text or a list of
                ``{"type": "text", "text": ...}`` and ``{"type": "audio", "audio": ...}``. An audio
                is what :meth:`generate` takes, with ``"sample_rate"`` beside an array.
                ``{"type": "input_audio", "input_audio": {"data": base64}}`` is understood too.
            max_tokens: Most tokens of the answer.
            temperature: 0 takes the likeliest token; Mistral suggests 0.2 for chats.
            top_p: Mass of the likeliest tokens to draw from; Mistral suggests 0.95.
            seed: Seed of the draws where ``temperature`` is above 0.
            kv_bits: Bits of a stored key or value, 2, 3, 4 or 8; ``None`` keeps them as they are.
            kv_rotation: What goes before the rounding: ``none``, ``planar``, ``iso`` or
                ``hadamard``.
            stream: Return an iterator over new text instead of the whole answer.

        Raises:
            AudioError: If a recording cannot be read.
            ValueError: If the conversation is not one the model knows, or too long for it.
        """
        options = TextOptions(max_tokens, temperature, top_p, seed)
        prompt = chat_prompt(self.tokenizer, parse_messages(messages, self._clip))
        self._check_length(prompt)
        rate = self.config.audio.sample_rate
        open_decoder = partial(self._free_decoder, kv_cache_config(kv_bits, kv_rotation))
        run = _Run(open_decoder, self.tokenizer, prompt, options, rate)
        if stream:
            return iter(run)
        for _ in run:
            pass
        return run.answer()

    def score(self, samples: npt.NDArray[np.float32], tokens: Sequence[int]) -> mx.array:
        """Scores in the place of each token of a recording's transcription, ``(n, vocab)``.

        Args:
            samples: The recording, mono, ``(n,)`` float32 at the model's rate.
            tokens: Ids of its transcription, one at least.
        """
        prompt = transcription_prompt(self.tokenizer, self._make_clip(samples))
        return self._free_decoder(None).score(prompt, tokens)

    def _free_decoder(self, kv: KVCacheConfig | None) -> TextDecoder:
        """The kept context, or a new one where it is in use or held in another way."""
        if self._decoder is None or self._decoder.busy or self._decoder.kv != kv:
            self._decoder = TextDecoder(self.model, self.tokenizer.eos_id, self.context, kv)
        return self._decoder

    def _clip(self, audio: Any, sample_rate: int | None) -> Clip:
        return self._make_clip(read_audio(audio, sample_rate))

    def _make_clip(self, samples: npt.NDArray[np.float32]) -> Clip:
        return Clip(samples, self.model.chunk_samples, self.model.chunk_tokens)

    def _check_length(self, prompt: Prompt) -> None:
        if len(prompt) < self.context:
            return
        n_audio = sum(clip.n_tokens for clip in prompt.clips)
        per_s = self.model.chunk_tokens / (self.model.chunk_samples / self.config.audio.sample_rate)
        raise ValueError(
            f"the conversation takes {len(prompt)} positions, {n_audio} of them for "
            f"{n_audio / per_s / 60:.1f} min of audio; the model has {self.context}, "
            f"{self.context / per_s / 60:.1f} min: shorten the audio, or transcribe it first"
        )


class _Run:
    """One answer being decoded."""

    def __init__(
        self,
        open_decoder: Callable[[], TextDecoder],
        tokenizer: Tokenizer,
        prompt: Prompt,
        options: TextOptions,
        sample_rate: int,
    ):
        self._sample_rate = sample_rate
        self._open_decoder = open_decoder
        self._tokenizer = tokenizer
        self._prompt = prompt
        self._options = options
        self._tokens: list[int] = []
        self._text: list[str] = []
        self._timings = Timings()
        self._n_reused = 0

    def __iter__(self) -> Iterator[str]:
        """Decode, and give new text as it settles."""
        decoder, detokenizer = self._open_decoder(), StreamingDetokenizer(self._tokenizer)
        started, first_text_s = time.perf_counter(), None
        before = decoder.encode_s, decoder.decode_s, decoder.n_passes
        for token in decoder.generate(self._prompt, self._options):
            self._tokens.append(token)
            if text := self._add(detokenizer.add_token(token)):
                if first_text_s is None:
                    first_text_s = time.perf_counter() - started
                yield text
        if text := self._add(detokenizer.finalize()):
            yield text
        self._n_reused = decoder.n_reused
        self._timings = Timings(
            audio_s=sum(clip.n_samples for clip in self._prompt.clips) / self._sample_rate,
            encode_s=decoder.encode_s - before[0],
            decode_s=decoder.decode_s - before[1],
            first_text_s=first_text_s,
            total_s=time.perf_counter() - started,
            passes=decoder.n_passes - before[2],
            positions=len(self._tokens),
        )

    def answer(self) -> Answer:
        """The whole answer."""
        ended = self._tokens[-1:] == [self._tokenizer.eos_id]
        return Answer(
            "".join(self._text),
            self._tokens,
            "stop" if ended else "length",
            n_prompt=len(self._prompt),
            n_reused=self._n_reused,
            timings=self._timings,
        )

    def _add(self, text: str) -> str:
        text = text if self._text else text.lstrip()
        if text:
            self._text.append(text)
        return text
