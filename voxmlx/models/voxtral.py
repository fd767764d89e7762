"""Voxtral, the offline model: Whisper encoder, adapter and a Mistral decoder.

Audio is part of the prompt: each chunk of 30 seconds gives 375 embeddings that stand in the place
of as many ``[AUDIO]`` tokens. What is asked about them, and what comes out, is text.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from voxmlx.cache.ring import RingKVCache
from voxmlx.config import ModelConfig, WhisperEncoderConfig
from voxmlx.errors import ConfigError
from voxmlx.models.adapter import Adapter
from voxmlx.models.decoder import Decoder
from voxmlx.models.whisper_encoder import WhisperEncoder

MODEL_TYPE = "voxtral"

CONTEXT = 32768
"""Positions the released model was trained for (its model card: 32k tokens)."""


class Voxtral(nn.Module):
    """The whole network.

    Args:
        config: Numbers of the model.

    Raises:
        ConfigError: If the encoder is not Whisper's.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        if not isinstance(config.encoder, WhisperEncoderConfig):
            raise ConfigError(f"{MODEL_TYPE} needs a Whisper encoder, got {config.encoder!r}")
        self.config = config
        self.encoder = WhisperEncoder(config.encoder, config.audio.n_mels)
        self.adapter = Adapter(config.encoder.dim, config.decoder.dim, config.downsample_factor)
        self.decoder = Decoder(config.decoder)

    @property
    def dtype(self) -> mx.Dtype:
        """Type of the decoder's activations."""
        return self.decoder.dtype

    @property
    def chunk_frames(self) -> int:
        """Mel frames of one chunk (3000)."""
        return 2 * self.encoder.config.n_positions

    @property
    def chunk_tokens(self) -> int:
        """Decoder positions of one chunk (375)."""
        return self.encoder.config.n_positions // self.config.downsample_factor

    @property
    def chunk_samples(self) -> int:
        """Samples of one chunk (480000)."""
        return self.chunk_frames * self.config.audio.hop_length

    def embed_audio(self, mel: mx.array) -> mx.array:
        """Audio embeddings of whole chunks, ``(B, 3000, n_mels) -> (B, 375, D)``."""
        return self.adapter(self.encoder(mel)).astype(self.dtype)

    def embed_tokens(self, ids: list[int]) -> mx.array:
        """Embeddings of ids, ``(1, n, D)``."""
        return self.decoder.embed_tokens(mx.array([ids], dtype=mx.int32))

    def __call__(self, x: mx.array, cache: RingKVCache) -> mx.array:
        """Hidden states of the next positions, ``(B, T, D) -> (B, T, D)``."""
        return self.decoder(x, cache)
