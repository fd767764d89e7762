"""What a session needs of the device: embeddings for its audio and tokens for its embeddings.

A session alone owns both (:class:`OwnBackend`); sessions that share the device bring their own
backend, whose parts hand work to common batches.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import mlx.core as mx
import numpy as np

from voxmlx.config import KVCacheConfig
from voxmlx.generation.batch import MAX_STEP
from voxmlx.generation.greedy import TokenStream
from voxmlx.generation.row import GeneratedToken, RowOptions, SpecialIds
from voxmlx.models.voxtral_realtime import VoxtralRealtime
from voxmlx.streaming.embedder import AudioEmbedder, little_under_way


class Embedder(Protocol):
    """As :class:`voxmlx.streaming.embedder.AudioEmbedder`; ``encode`` may give less than ready."""

    max_rows: int

    @property
    def n_ready(self) -> int:
        """Positions that :meth:`encode` will still give."""

    def feed(self, samples: np.ndarray) -> None:
        """Take more audio."""

    def encode(self, max_rows: int | None = None) -> mx.array:
        """The next embeddings, ``(1, n, D)``; ``n`` may be 0."""

    def drop(self) -> None:
        """Forget what is ready."""


class Tokens(Protocol):
    """As :class:`voxmlx.generation.greedy.TokenStream`; ``step`` may give less than ready."""

    n_tokens: int

    @property
    def n_passes(self) -> int:
        """Passes through the decoder that gave its tokens."""

    @property
    def n_ready(self) -> int:
        """Tokens that :meth:`step` will still give for the embeddings at hand."""

    @property
    def finished(self) -> bool:
        """Whether EOS was returned."""

    def add(self, audio: mx.array) -> None:
        """Queue audio embeddings, ``(1, n, D)``."""

    def step(self, max_tokens: int) -> list[GeneratedToken]:
        """The next tokens."""


class Backend(Protocol):
    """Where a session's audio and tokens are computed."""

    def open_embedder(self, max_rows: int) -> Embedder:
        """The session's audio; called once."""

    def open_tokens(self, ids: SpecialIds, options: RowOptions) -> Tokens:
        """A decoder at its prompt; called again after an EOS in mid-stream."""


class OwnBackend:
    """Everything for one session alone.

    Args:
        model: The network.
        kv: How keys and values are compressed; ``None`` keeps them as they are.
        max_step: Most positions of a decoder pass.
        sparing: Whether memory counts more than time: what the device has not done yet is then one
            call of the encoder, or one position of the decoder.
    """

    def __init__(
        self,
        model: VoxtralRealtime,
        kv: KVCacheConfig | None = None,
        max_step: int = MAX_STEP,
        sparing: bool = False,
    ):
        self._model = model
        self._kv = kv
        self._max_step = max_step
        self._sparing = sparing

    def open_embedder(self, max_rows: int) -> AudioEmbedder:
        """The session's own encoder state."""
        return AudioEmbedder(self._model, max_rows, self._kv, self._sparing)

    def open_tokens(self, ids: SpecialIds, options: RowOptions) -> TokenStream:
        """A decoder of its own."""
        if not self._sparing:
            return TokenStream(self._model, ids, options, self._kv, self._max_step)
        options = replace(options, positions_per_pass=1)
        return SparingTokens(self._model, ids, options, self._kv, self._max_step, ahead=False)


class SparingTokens(TokenStream):
    """A decoder that never has much under way."""

    def step(self, max_tokens: int) -> list[GeneratedToken]:
        """As the base class."""
        with little_under_way():
            return super().step(max_tokens)
