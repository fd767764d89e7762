"""The decoding loop of one stream: audio embeddings in, token ids out.

A view of a :class:`voxmlx.generation.batch.BatchDecoder` with one row.
"""

from __future__ import annotations

import mlx.core as mx

from voxmlx.config import KVCacheConfig
from voxmlx.generation.batch import MAX_STEP, BatchDecoder
from voxmlx.generation.row import GeneratedToken, RowOptions, SpecialIds
from voxmlx.models.voxtral_realtime import VoxtralRealtime

__all__ = ["GeneratedToken", "SpecialIds", "TokenStream"]


class TokenStream:
    """Decode one stream.

    Args:
        model: The network.
        ids: Special ids of its tokenizer.
        options: How to decode.
        kv: How keys and values are compressed; ``None`` keeps them as they are.
        max_step: Most positions of a pass.
        ahead: See :class:`voxmlx.generation.batch.BatchDecoder`.
    """

    def __init__(
        self,
        model: VoxtralRealtime,
        ids: SpecialIds,
        options: RowOptions,
        kv: KVCacheConfig | None = None,
        max_step: int = MAX_STEP,
        ahead: bool = True,
    ):
        self._decoder = BatchDecoder(model, ids, 1, kv, max_step, ahead)
        self._row = self._decoder.join(options)
        self.n_tokens = 0

    @property
    def n_ready(self) -> int:
        """Tokens that the embeddings at hand allow to decode."""
        return self._decoder.n_ready(self._row)

    @property
    def n_passes(self) -> int:
        """Passes through the decoder so far."""
        return self._decoder.n_passes

    @property
    def finished(self) -> bool:
        """Whether EOS was written."""
        return self._decoder.finished(self._row)

    def add(self, audio: mx.array) -> None:
        """Queue audio embeddings of the next positions, ``(1, n, D)``."""
        self._decoder.add(self._row, audio)

    def step(self, max_tokens: int) -> list[GeneratedToken]:
        """Decode up to ``max_tokens`` tokens of those ready; after EOS there are none."""
        tokens: list[GeneratedToken] = []
        while len(tokens) < max_tokens and self.n_ready:
            tokens += self._decoder.step(max_tokens - len(tokens))[self._row]
        self.n_tokens += len(tokens)
        return tokens
