"""The public object: a loaded model that transcribes files, arrays and live audio."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal, overload

import mlx.core as mx
import numpy as np

from voxmlx.audio.decode import SAMPLE_RATE, AudioReader, open_audio, read_audio
from voxmlx.checkpoints.hub import resolve
from voxmlx.checkpoints.load import load_model, working_dtype
from voxmlx.config import ModelConfig
from voxmlx.errors import AudioError, CheckpointError
from voxmlx.models.fuse import prepare_for_inference
from voxmlx.models.voxtral import Voxtral
from voxmlx.models.voxtral_realtime import VoxtralRealtime
from voxmlx.offline import OfflinePipeline
from voxmlx.streaming.cuts import cut_places, join_pieces
from voxmlx.streaming.endless import OnEos
from voxmlx.streaming.files import FileRows, file_positions
from voxmlx.streaming.iterate import Session, iterate
from voxmlx.streaming.options import StreamOptions
from voxmlx.streaming.session import StreamingSession
from voxmlx.tokenizer import Tokenizer
from voxmlx.types import Event, TextDelta, Transcription

AudioSource = str | Path | bytes | BinaryIO | Any
"""A path, ``-`` for standard input, encoded bytes, a file object, or an array of samples."""


DEFAULT_ROWS = 8
"""Recordings of a list decoded at a time, where nothing else is asked."""


class Pipeline:
    """A model with its tokenizer.

    Args:
        model: The network.
        tokenizer: Its tokenizer.
    """

    def __init__(self, model: VoxtralRealtime, tokenizer: Tokenizer):
        self.model = model
        self.tokenizer = tokenizer

    @property
    def config(self) -> ModelConfig:
        """Numbers of the model."""
        return self.model.config

    def stream(
        self, *, transcription_delay_ms: int | None = None, **options: Any
    ) -> StreamingSession:
        """Open a live session.

        Args:
            transcription_delay_ms: See :meth:`generate`.
            options: Fields of :class:`voxmlx.streaming.options.StreamOptions`.
        """
        return StreamingSession(
            self.model,
            self.tokenizer,
            transcription_delay_ms=transcription_delay_ms,
            options=StreamOptions(**options),
        )

    def file_session(
        self, *, transcription_delay_ms: int | None = None, **options: Any
    ) -> StreamingSession:
        """Open a session for :func:`transcribe_events`, which takes long pieces at once.

        Where ``options`` do not say otherwise it does what the reference does with files: it stops
        where the model does, and no rule changes the logits.
        """
        return StreamingSession(
            self.model,
            self.tokenizer,
            transcription_delay_ms=transcription_delay_ms,
            options=StreamOptions(**{"on_eos": "stop", "rut_guard": False, **options}),
            encode_rows=file_positions(),
        )

    @overload
    def generate(
        self, audio: Sequence[AudioSource], *, stream: Literal[False] = False, **options: Any
    ) -> list[Transcription]: ...

    @overload
    def generate(
        self, audio: AudioSource, *, stream: Literal[False] = False, **options: Any
    ) -> Transcription: ...

    @overload
    def generate(
        self, audio: AudioSource, *, stream: Literal[True], **options: Any
    ) -> Iterator[str]: ...

    def generate(  # type: ignore[misc]  # the overloads leave the options out
        self,
        audio: AudioSource | Sequence[AudioSource],
        *,
        sample_rate: int | None = None,
        transcription_delay_ms: int | None = None,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        on_eos: OnEos = "stop",
        rut_guard: bool = False,
        context_bias: Sequence[str] = (),
        keywords: Sequence[str] = (),
        bias_strength: float = 1.0,
        kv_bits: int | None = None,
        kv_rotation: str = "hadamard",
        batch_size: int = DEFAULT_ROWS,
        cut_at_silence: bool = False,
        stream: bool = False,
    ) -> Transcription | list[Transcription] | Iterator[str]:
        """Transcribe a recording, or several as rows of one batch.

        Args:
            audio: A path, ``-`` for standard input, encoded bytes, a binary file object, or an
                array of samples, ``(n,)`` or ``(n, channels)``; or a list or tuple of these.
            sample_rate: Rate of an array in Hz.
            transcription_delay_ms: How far the text runs behind the audio: 80 to 1200 by 80, or
                2400. More is more accurate. ``None`` takes the model's own, 480.
            temperature: 0 takes the likeliest token.
            top_p: Mass of the likeliest tokens to draw from, where ``temperature`` is above 0.
            seed: Seed of the draws.
            on_eos: What to do where the model ends the stream although audio goes on: ``"stop"``,
                as the reference does, or ``"restart"``, which loses nothing.
            rut_guard: Whether to stop long ruts of pads (:mod:`voxmlx.generation.rut_guard`).
            context_bias: Phrases to expect, such as names; they become likelier.
            keywords: The same under the name that servers use; both lists count.
            bias_strength: Factor of how much likelier.
            kv_bits: Bits of a stored key or value, 2, 3, 4 or 8; ``None`` keeps them as they are.
            kv_rotation: What goes before the rounding: ``none``, ``planar``, ``iso`` or
                ``hadamard``.
            batch_size: Most recordings, or pieces of one, decoded at a time, 1 to 64. Each gets the
                tokens that it gets alone.
            cut_at_silence: Cut a recording into pieces of about 30 s at its quietest places and
                decode them side by side. Pieces do not know what was said before them, which costs
                accuracy (:mod:`voxmlx.streaming.cuts`).
            stream: Return an iterator over new text instead of the whole result.

        Returns:
            The transcription, a list of them for several recordings, or with ``stream`` an iterator
            of ``str``.

        Raises:
            AudioError: If a recording cannot be read.
            ValueError: If the model was not trained for the delay, or options exclude each other.
        """
        options: dict[str, Any] = {
            "temperature": temperature,
            "top_p": top_p,
            "seed": seed,
            "on_eos": on_eos,
            "rut_guard": rut_guard,
            "context_bias": context_bias,
            "keywords": keywords,
            "bias_strength": bias_strength,
            "kv_bits": kv_bits,
            "kv_rotation": kv_rotation,
        }
        several = list(audio) if isinstance(audio, list | tuple) else None
        if several is not None or cut_at_silence:
            if stream or (several is not None and cut_at_silence):
                raise ValueError(
                    "stream and cut_at_silence are for one recording, and exclude each other"
                )
            rows = partial(self._rows, batch_size, transcription_delay_ms, StreamOptions(**options))
            if several is not None:
                return rows(several, sample_rate)
            return _in_pieces(rows, audio, sample_rate)
        session = self.file_session(
            transcription_delay_ms=transcription_delay_ms, keep_history=not stream, **options
        )
        events = transcribe_events(session, audio, sample_rate)
        if stream:
            return (event.text for event in events if isinstance(event, TextDelta))
        for _ in events:
            pass
        return session.result()

    def _rows(
        self,
        batch_size: int,
        delay_ms: int | None,
        options: StreamOptions,
        sources: Sequence[AudioSource],
        sample_rate: int | None,
    ) -> list[Transcription]:
        rows: FileRows[int] = FileRows(self.model, self.tokenizer, batch_size, delay_ms, options)
        results: dict[int, Transcription] = {}
        for done in rows.work(enumerate(sources), sample_rate):
            if done.result is None:
                raise done.error or AudioError(f"recording {done.key}: not read")
            results[done.key] = done.result
        return [results[i] for i in range(len(sources))]


def _in_pieces(
    transcribe: Callable[[Sequence[AudioSource], int | None], list[Transcription]],
    audio: AudioSource,
    sample_rate: int | None,
) -> Transcription:
    samples = read_audio(audio, sample_rate)
    places = cut_places(samples)
    results = transcribe(np.split(samples, places), SAMPLE_RATE)
    return join_pieces(results, [0.0, *(place / SAMPLE_RATE for place in places)])


def transcribe_events(
    session: Session, audio: AudioSource | AudioReader, sample_rate: int | None = None
) -> Iterator[Event]:
    """Run a session over a whole recording; the session's result is complete at the end."""
    with audio if isinstance(audio, AudioReader) else open_audio(audio, sample_rate) as reader:
        yield from iterate(session, reader)


def load(
    path_or_repo: str | Path, *, dtype: mx.Dtype | str | None = None, revision: str | None = None
) -> Pipeline | OfflinePipeline:
    """Open a model.

    Args:
        path_or_repo: A folder, a repository of the Hugging Face hub, or ``tiny`` for the small
            model inside the package.
        dtype: Type of the floating-point weights, as ``mx.float16`` or ``"float16"``; ``None``
            keeps the stored one on a GPU and takes float32 on a CPU, where MLX's 16-bit products
            are tens of times slower.
        revision: Branch, tag or commit of the repository.

    Returns:
        The model, ready to transcribe: a :class:`Pipeline` for realtime models, an
        :class:`~voxmlx.offline.OfflinePipeline` for Voxtral-Mini-3B.

    Raises:
        HubError: If the repository cannot be had.
        CheckpointError: If the folder holds no model that can be loaded.
    """
    folder = resolve(path_or_repo, revision)
    if isinstance(dtype, str):
        dtype = _dtype(dtype)
    loaded = load_model(folder, working_dtype() if dtype is None else dtype)
    prepare_for_inference(loaded.model)
    tokenizer = Tokenizer.from_file(loaded.tokenizer_path)
    n_vocab = loaded.config.decoder.vocab_size
    if tokenizer.n_vocab != n_vocab:
        raise CheckpointError(
            f"{loaded.tokenizer_path}: has {tokenizer.n_vocab} ids, but the network {n_vocab}; "
            "download the model again"
        )
    if isinstance(loaded.model, Voxtral):
        return OfflinePipeline(loaded.model, tokenizer)
    return Pipeline(loaded.model, tokenizer)


def _dtype(name: str) -> mx.Dtype:
    known = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}
    if name not in known:
        raise ValueError(f"dtype must be one of {', '.join(known)}, got {name!r}")
    return known[name]
