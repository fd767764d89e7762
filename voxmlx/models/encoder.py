"""The causal audio encoder of the realtime model: log-mel frames at 100 Hz, rows at 50 Hz.

Source of every rule: ``modeling_voxtral_realtime.py`` of Transformers 5.23, checked against
Mistral's parameter names. It knows nothing of tokens or text.
"""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from voxmlx.cache.quantized import make_store
from voxmlx.cache.ring import RingKVCache
from voxmlx.cache.store import RingIndex
from voxmlx.config import EncoderConfig, KVCacheConfig
from voxmlx.models.layers import Attention, CausalConv1d, SwiGLU


@dataclass
class EncoderState:
    """What a stream leaves behind: convolution tails and the ring of each layer."""

    cache: RingKVCache
    conv1_tail: mx.array | None = None
    conv2_tail: mx.array | None = None


class EncoderLayer(nn.Module):
    """One pre-norm transformer layer with biases on q, v, o and the last feed-forward matrix."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.dim, config.norm_eps)
        self.attention = Attention(
            config.dim,
            config.n_heads,
            config.n_kv_heads,
            config.head_dim,
            config.rope_theta,
            bias=True,
        )
        self.ffn_norm = nn.RMSNorm(config.dim, config.norm_eps)
        self.mlp = SwiGLU(config.dim, config.hidden_dim, bias=True)

    def __call__(self, x: mx.array, cache: RingKVCache, layer: int, index: RingIndex) -> mx.array:
        """Map ``(B * T, D)`` rows."""
        x = x + self.attention(self.attention_norm(x), cache, layer, index)
        return x + self.mlp(self.ffn_norm(x))


class CausalEncoder(nn.Module):
    """Two causal convolutions, then transformer layers with a sliding window.

    Args:
        config: Widths of the network.
        n_mels: Mel bins of a frame.
    """

    def __init__(self, config: EncoderConfig, n_mels: int):
        super().__init__()
        self.config = config
        self.conv1 = CausalConv1d(n_mels, config.dim, kernel_size=3)
        self.conv2 = CausalConv1d(config.dim, config.dim, kernel_size=3, stride=2)
        self.layers = [EncoderLayer(config) for _ in range(config.n_layers)]
        self.norm = nn.RMSNorm(config.dim, config.norm_eps)

    def make_state(
        self, max_step: int, batch_size: int = 1, kv: KVCacheConfig | None = None
    ) -> EncoderState:
        """A fresh stream.

        Args:
            max_step: Most audio frames (20 ms) of one call.
            batch_size: Rows.
            kv: How keys and values are compressed; ``None`` keeps them as they are.
        """
        c = self.config
        dtype = self.norm.weight.dtype
        store = make_store(c.n_layers, c.n_kv_heads, c.head_dim, dtype, kv)
        cache = RingKVCache(store, c.sliding_window, max_step, batch_size, c.rope_theta)
        return EncoderState(cache)

    def __call__(self, mel: mx.array) -> mx.array:
        """Encode a whole clip, ``(B, T, n_mels) -> (B, T // 2, D)``."""
        n_frames = max(1, mel.shape[1] // 2)
        return self.step(mel, self.make_state(n_frames, mel.shape[0]))

    def step(self, mel: mx.array, state: EncoderState) -> mx.array:
        """Encode the next mel frames of a stream, ``(B, T, n_mels) -> (B, n, D)``.

        Any split of a clip gives the rows of the whole; ``n`` is 0 where a frame is not complete.
        """
        x, state.conv1_tail = self.conv1.step(mel.astype(self.norm.weight.dtype), state.conv1_tail)
        x, state.conv2_tail = self.conv2.step(nn.gelu(x), state.conv2_tail)
        B, T, D = x.shape
        if T == 0:
            return x
        index = state.cache.prepare(T)
        x = nn.gelu(x).reshape(B * T, D)
        for i, layer in enumerate(self.layers):
            x = layer(x, state.cache, i, index)
        state.cache.advance(T)
        return self.norm(x).reshape(B, T, D)
