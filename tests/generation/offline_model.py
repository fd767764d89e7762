"""A tiny offline model whose chunks last 0.4 s (5 positions), so that tests see many of them."""

from __future__ import annotations

import mlx.core as mx

from voxmlx.config import AudioConfig, DecoderConfig, ModelConfig, WhisperEncoderConfig
from voxmlx.models.voxtral import Voxtral

CONFIG = ModelConfig(
    "voxtral",
    AudioConfig(global_log_mel_max=None),
    WhisperEncoderConfig(dim=32, n_layers=2, n_heads=2, head_dim=16, hidden_dim=64, n_positions=20),
    DecoderConfig(
        dim=64,
        n_layers=2,
        n_heads=4,
        n_kv_heads=2,
        head_dim=32,
        hidden_dim=96,
        vocab_size=1280,
        sliding_window=None,
        rope_theta=1e8,
        tied_embeddings=False,
    ),
)


def tiny_voxtral(seed: int = 0) -> Voxtral:
    """The model; its weights depend on ``seed`` alone."""
    mx.random.seed(seed)
    model = Voxtral(CONFIG)
    model.decoder.embed_tokens.weight *= 20  # or the text before hardly matters
    mx.eval(model.parameters())
    return model
