"""The causal audio encoder of the realtime model: log-mel frames at 100 Hz, rows at 50 Hz.

Source of every rule: ``modeling_voxtral_realtime.py`` of Transformers 5.23, checked against
Mistral's parameter names. It knows nothing of tokens or text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from voxmlx.cache.quantized import make_store
from voxmlx.cache.ring import RingKVCache
from voxmlx.cache.store import RingIndex, RowSlots
from voxmlx.config import EncoderConfig, KVCacheConfig
from voxmlx.kernels.host import gelu as gelu_by_host
from voxmlx.kernels.rows import gelu
from voxmlx.models.fuse import HOST
from voxmlx.models.layers import Attention, CausalConv1d, SwiGLU


@dataclass
class EncoderState:
    """What a stream leaves behind: convolution tails and the ring of each layer."""

    cache: RingKVCache
    conv1_tail: mx.array | None = None
    conv2_tail: mx.array | None = None

    def clear_row(self, row: int) -> None:
        """Begin a new stream in one row."""
        self.cache.clear_row(row)
        for tail in (self.conv1_tail, self.conv2_tail):
            if tail is not None:
                tail[row] = 0

    def begin_row(
        self, row: int, tails: tuple[mx.array, mx.array], slots: RowSlots, n: int
    ) -> None:
        """Let a row go on behind the first ``n`` encoder rows of another stream."""
        self.cache.begin_row(row, slots, n)
        if self.conv1_tail is not None and self.conv2_tail is not None:
            self.conv1_tail[row : row + 1], self.conv2_tail[row : row + 1] = tails

    def take_rows(self, rows: Sequence[int | None]) -> None:
        """Keep and order rows, as :meth:`RingKVCache.take_rows`; clear empty ones before use."""
        self.cache.take_rows(rows)
        index = mx.array([0 if row is None else row for row in rows], dtype=mx.int32)
        if self.conv1_tail is not None and self.conv2_tail is not None:
            self.conv1_tail = self.conv1_tail[index]
            self.conv2_tail = self.conv2_tail[index]


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
        x = self.attention(self.attention_norm(x), cache, layer, index, x)
        return self.mlp(self.ffn_norm(x), x)


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
        store.by_host = self.layers[0].attention.by_host
        store.joined = all(layer.attention.joined for layer in self.layers)
        cache = RingKVCache(store, c.sliding_window, max_step, batch_size, c.rope_theta)
        tails = [conv.empty_tail(batch_size, dtype) for conv in (self.conv1, self.conv2)]
        return EncoderState(cache, *tails)

    def __call__(self, mel: mx.array) -> mx.array:
        """Encode a whole clip, ``(B, T, n_mels) -> (B, T // 2, D)``."""
        n_frames = max(1, mel.shape[1] // 2)
        return self.step(mel, self.make_state(n_frames, mel.shape[0]))

    def step(
        self, mel: mx.array, state: EncoderState, n_valid: Sequence[int] | None = None
    ) -> mx.array:
        """Encode the next mel frames of a stream, ``(B, T, n_mels) -> (B, n, D)``.

        Any split of a clip gives the rows of the whole; ``n`` is 0 where a frame is not complete.

        Args:
            mel: New frames.
            state: The stream so far.
            n_valid: How many of the frames are each row's own, even numbers as T is; its stream
                goes on after them. ``None`` means all.
        """
        valid = None if n_valid is None else mx.array(list(n_valid), dtype=mx.int32)
        x, tails = self.convolve(mel, (state.conv1_tail, state.conv2_tail), valid)
        state.conv1_tail, state.conv2_tail = tails
        T = x.shape[1]
        if T == 0:
            return x
        rows = self.attend(x, state.cache, state.cache.prepare(T))
        state.cache.advance(T if n_valid is None else [n // 2 for n in n_valid])
        return rows

    def convolve(
        self, mel: mx.array, tails: Sequence[mx.array | None], n_valid: mx.array | None = None
    ) -> tuple[mx.array, tuple[mx.array, mx.array]]:
        """Both convolutions of a step: ``(B, n, D)``, and what they leave for the next one."""
        mel = mel.astype(self.norm.weight.dtype)
        by_host = HOST in self.conv1 and mel.dtype == mx.float32
        activate = gelu_by_host if by_host else gelu
        x, tail1 = self.conv1.step(mel, tails[0], n_valid)
        x, tail2 = self.conv2.step(activate(x), tails[1], n_valid)
        return activate(x), (tail1, tail2)

    def attend(self, x: mx.array, cache: RingKVCache, index: RingIndex) -> mx.array:
        """All layers of a step, ``(B, T, D) -> (B, T, D)``, at the places in the rings given."""
        shape = x.shape
        x = x.reshape(-1, shape[-1])
        for i, layer in enumerate(self.layers):
            x = layer(x, cache, i, index)
        return self.norm(x).reshape(shape)
