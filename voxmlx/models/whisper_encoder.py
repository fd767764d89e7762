"""The bidirectional audio encoder of the offline model: Whisper large-v3, chunk by chunk.

Every chunk of 30 seconds is encoded alone: log-mel frames at 100 Hz in, rows at 50 Hz out. Source
of every rule: ``modeling_voxtral.py`` of Transformers 5.23. It knows nothing of tokens or text.
"""

from __future__ import annotations

import math

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from voxmlx.config import WhisperEncoderConfig
from voxmlx.kernels.host import attend as attend_by_host
from voxmlx.models.fuse import JoinedLinear, can_join, linear
from voxmlx.models.layers import CenteredConv1d

LONGEST_PERIOD = 10000.0
"""Longest period of the positions' sinusoids, in rows (over 2 pi)."""


def sinusoids(n_positions: int, dim: int) -> mx.array:
    """Fixed position embeddings, ``(n_positions, dim)`` float32, sines first.

    Angles are rounded to float32 as in the reference: at row 1500 that shifts values by up to 1e-4.
    """
    step = np.float32(-math.log(LONGEST_PERIOD) / (dim // 2 - 1))
    exponents = (step * np.arange(dim // 2, dtype=np.float32)).astype(np.float64)
    inverse = np.exp(exponents).astype(np.float32)
    angles = (np.arange(n_positions, dtype=np.float32)[:, None] * inverse).astype(np.float64)
    table = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    return mx.array(table.astype(np.float32))


class FullAttention(nn.Module):
    """Multi-head attention of every row to every row, without rotary positions."""

    def __init__(self, config: WhisperEncoderConfig):
        super().__init__()
        width = config.n_heads * config.head_dim
        self.head_dim = config.head_dim
        self.scale = config.head_dim**-0.5
        self.q_proj = nn.Linear(config.dim, width)
        self.k_proj = nn.Linear(config.dim, width, bias=False)
        self.v_proj = nn.Linear(config.dim, width)
        self.o_proj = nn.Linear(width, config.dim)
        self._qkv: JoinedLinear | None = None

    def __call__(self, x: mx.array, batch_size: int) -> mx.array:
        """Attend ``(B * T, D)`` rows within each of ``batch_size`` chunks; same shape out."""

        def heads(y: mx.array) -> mx.array:
            return y.reshape(batch_size, x.shape[0] // batch_size, -1, self.head_dim).transpose(
                0, 2, 1, 3
            )

        if self._qkv is None:
            q, k, v = (heads(linear(p, x)) for p in (self.q_proj, self.k_proj, self.v_proj))
        else:
            q, k, v = mx.split(heads(self._qkv(x)), 3, axis=1)
        if self._qkv is not None and self._qkv.host is not None:
            out = attend_by_host(q, k, v, self.scale)
        else:
            out = mx.fast.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return linear(self.o_proj, out.transpose(0, 2, 1, 3).reshape(x.shape[0], -1))

    def fuse(self) -> list[nn.Module]:
        """Compute q, k and v as one product from now on; returns the layers this could join."""
        layers = [self.q_proj, self.k_proj, self.v_proj]
        if not can_join(layers):
            return []
        self._qkv = JoinedLinear(layers)
        return layers


class FeedForward(nn.Module):
    """The plain feed-forward block, ``down(gelu(up(x)))``, with both biases."""

    def __init__(self, dim: int, hidden_dim: int):
        super().__init__()
        self.up_proj = nn.Linear(dim, hidden_dim)
        self.down_proj = nn.Linear(hidden_dim, dim)

    def __call__(self, x: mx.array) -> mx.array:
        """Map rows, ``(n, D) -> (n, D)``."""
        return linear(self.down_proj, nn.gelu(linear(self.up_proj, x)))


class WhisperLayer(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, config: WhisperEncoderConfig):
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.dim, config.norm_eps)
        self.attention = FullAttention(config)
        self.ffn_norm = nn.LayerNorm(config.dim, config.norm_eps)
        self.mlp = FeedForward(config.dim, config.hidden_dim)

    def __call__(self, x: mx.array, batch_size: int) -> mx.array:
        """Map ``(B * T, D)`` rows."""
        x = x + self.attention(self.attention_norm(x), batch_size)
        return x + self.mlp(self.ffn_norm(x))


class WhisperEncoder(nn.Module):
    """Two centred convolutions, fixed positions, then transformer layers.

    Args:
        config: Widths of the network.
        n_mels: Mel bins of a frame.
    """

    def __init__(self, config: WhisperEncoderConfig, n_mels: int):
        super().__init__()
        self.config = config
        self.conv1 = CenteredConv1d(n_mels, config.dim, kernel_size=3)
        self.conv2 = CenteredConv1d(config.dim, config.dim, kernel_size=3, stride=2)
        self.layers = [WhisperLayer(config) for _ in range(config.n_layers)]
        self.norm = nn.LayerNorm(config.dim, config.norm_eps)
        self._positions = sinusoids(config.n_positions, config.dim)

    def __call__(self, mel: mx.array) -> mx.array:
        """Encode whole chunks, ``(B, 2 * n_positions, n_mels) -> (B, n_positions, D)``.

        Raises:
            ValueError: If the chunks are not of the one length the model takes.
        """
        n_frames = 2 * self.config.n_positions
        if mel.shape[1] != n_frames:
            raise ValueError(f"a chunk must have {n_frames} mel frames, got {mel.shape[1]}")
        dtype = self.norm.weight.dtype
        x = nn.gelu(self.conv1(mel.astype(dtype)))
        x = (nn.gelu(self.conv2(x)) + self._positions).astype(dtype)
        B, T, D = x.shape
        x = x.reshape(B * T, D)
        for layer in self.layers:
            x = layer(x, B)
        return self.norm(x).reshape(B, T, D)
