"""A tiny random model whose windows are far shorter than the streams of the tests."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from voxmlx.config import AudioConfig, DecoderConfig, EncoderConfig, ModelConfig
from voxmlx.generation.row import SpecialIds
from voxmlx.models.voxtral_realtime import VoxtralRealtime

IDS = SpecialIds(bos=1, eos=2, pad=32)

CONFIG = ModelConfig(
    "voxtral_realtime",
    AudioConfig(),
    EncoderConfig(dim=32, n_layers=2, n_heads=2, head_dim=16, hidden_dim=64, sliding_window=24),
    DecoderConfig(
        dim=64,
        n_layers=2,
        n_heads=4,
        n_kv_heads=2,
        head_dim=16,
        hidden_dim=96,
        vocab_size=48,
        sliding_window=20,
        ada_dim=8,
    ),
)


def tiny_realtime(seed: int = 0, dtype: mx.Dtype = mx.float32) -> VoxtralRealtime:
    """The model; its weights depend on ``seed`` alone."""
    mx.random.seed(seed)
    model = VoxtralRealtime(CONFIG)
    model.set_dtype(dtype)
    mx.eval(model.parameters())
    return model


def quantized(model: VoxtralRealtime) -> VoxtralRealtime:
    """The model with 8-bit weights, those of the embedding and the encoder included."""
    nn.quantize(
        model,
        32,
        8,
        class_predicate=lambda _, m: hasattr(m, "to_quantized") and m.weight.shape[-1] % 32 == 0,
    )
    return model


def random_audio(n: int, seed: int, dtype: mx.Dtype = mx.float32) -> mx.array:
    """Audio embeddings large enough to steer the tokens, ``(1, n, 64)``, in short runs."""
    key = mx.random.key(seed)
    x = mx.random.normal((1, (n + 2) // 3, 64), key=key)
    return mx.repeat(x, 3, axis=1)[:, :n].astype(dtype)
