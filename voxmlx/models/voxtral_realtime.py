"""Voxtral Realtime: causal encoder, adapter and delay-conditioned decoder.

One decoder position is 80 ms of audio; its input is the sum of an audio embedding and the embedding
of the token placed there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import mlx.core as mx
import mlx.nn as nn

from voxmlx.config import EncoderConfig, ModelConfig
from voxmlx.errors import ConfigError
from voxmlx.models.adapter import Adapter
from voxmlx.models.decoder import Conditioning, Decoder
from voxmlx.models.encoder import CausalEncoder, EncoderState
from voxmlx.models.fuse import embed

if TYPE_CHECKING:
    from voxmlx.cache.ring import RingKVCache

MODEL_TYPE = "voxtral_realtime"


class VoxtralRealtime(nn.Module):
    """The whole network.

    Args:
        config: Numbers of the model.

    Raises:
        ConfigError: If the encoder is not a causal one.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        if not isinstance(config.encoder, EncoderConfig):
            raise ConfigError(f"{MODEL_TYPE} needs a causal encoder, got {config.encoder!r}")
        self.config = config
        self.encoder = CausalEncoder(config.encoder, config.audio.n_mels)
        self.adapter = Adapter(config.encoder.dim, config.decoder.dim, config.downsample_factor)
        self.decoder = Decoder(config.decoder)

    @property
    def dtype(self) -> mx.Dtype:
        """Type of the decoder's activations."""
        return self.decoder.dtype

    def embed_audio(
        self,
        mel: mx.array,
        state: EncoderState | None = None,
        n_valid: Sequence[int] | None = None,
    ) -> mx.array:
        """Audio embeddings of the next mel frames.

        Args:
            mel: ``(B, T, n_mels)``; ``T`` is a multiple of the 8 frames of a position.
            state: The stream so far; ``None`` for a whole clip.
            n_valid: Frames that are each row's own, where rows differ; multiples of 8.

        Returns:
            ``(B, T // 8, D)``.

        Raises:
            ValueError: If ``T`` is not a multiple of 8.
        """
        frames = self.config.frames_per_token
        if mel.shape[1] % frames:
            raise ValueError(f"T must be a multiple of {frames} mel frames, got {mel.shape[1]}")
        rows = self.encoder(mel) if state is None else self.encoder.step(mel, state, n_valid)
        return self.adapter(rows).astype(self.dtype)

    def __call__(
        self,
        tokens: mx.array,
        audio: mx.array,
        cache: RingKVCache,
        conditioning: Conditioning,
    ) -> mx.array:
        """Hidden states of the next positions.

        Args:
            tokens: Ids placed at the positions, ``(B, T)``.
            audio: Audio embeddings of the positions, ``(B, T, D)``.
            cache: Keys and values so far.
            conditioning: What :meth:`Decoder.conditioning` gave for the delay.

        Returns:
            ``(B, T, D)``.
        """
        words = embed(self.decoder.embed_tokens, tokens).astype(self.dtype)
        return self.decoder(audio.astype(self.dtype) + words, cache, conditioning)
