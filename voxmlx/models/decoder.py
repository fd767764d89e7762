"""The text decoder: Mistral layers, with or without conditioning on the delay.

It takes embeddings and gives hidden states or logits; it knows no sampling and no schedule. Source
of the conditioning: ``modeling_voxtral_realtime.py`` of Transformers 5.23.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import mlx.core as mx
import mlx.nn as nn

from voxmlx.cache.growing import GrowingKVCache
from voxmlx.cache.quantized import make_store
from voxmlx.cache.ring import RingKVCache
from voxmlx.cache.store import RingIndex
from voxmlx.config import DecoderConfig, KVCacheConfig
from voxmlx.kernels import products
from voxmlx.kernels.decode import add_norm
from voxmlx.kernels.launch import on_cuda
from voxmlx.kernels.rows import gelu
from voxmlx.models.fuse import HOST, UNPACKED, multiply_added, packed_form, packed_product
from voxmlx.models.layers import Attention, SwiGLU

TIME_EMBEDDING_BASE = 10000.0
"""Longest period of the delay's sinusoids, in tokens (over 2 pi)."""

Conditioning = mx.array | Sequence[mx.array] | None
"""Weights of every layer's feed-forward norm; see :meth:`Decoder.__call__`."""


def time_embedding(n_delay: int, dim: int) -> mx.array:
    """Sinusoids of a delay counted in tokens, ``(dim,)`` float32, cosines first."""
    half = dim // 2
    inverse = mx.exp(-math.log(TIME_EMBEDDING_BASE) * mx.arange(half, dtype=mx.float32) / half)
    return mx.concatenate([mx.cos(n_delay * inverse), mx.sin(n_delay * inverse)])


class AdaNorm(nn.Module):
    """Bottleneck from the delay's embedding to a scale of one layer's feed-forward input."""

    def __init__(self, dim: int, ada_dim: int):
        super().__init__()
        self.linear_1 = nn.Linear(dim, ada_dim, bias=False)
        self.linear_2 = nn.Linear(ada_dim, dim, bias=False)

    def __call__(self, t_cond: mx.array) -> mx.array:
        """Map ``(1, D)`` float32 to the scale minus one, ``(1, D)`` float32."""
        return self.linear_2(gelu(self.linear_1(t_cond)))


class DecoderLayer(nn.Module):
    """One pre-norm transformer layer without biases."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.dim, config.norm_eps)
        self.attention = Attention(
            config.dim, config.n_heads, config.n_kv_heads, config.head_dim, config.rope_theta
        )
        self.ffn_norm = nn.RMSNorm(config.dim, config.norm_eps)
        self.mlp = SwiGLU(config.dim, config.hidden_dim)
        if config.ada_dim is not None:
            self.ada_norm = AdaNorm(config.dim, config.ada_dim)

    def __call__(
        self,
        x: mx.array,
        normed: mx.array,
        cache: RingKVCache,
        layer: int,
        index: RingIndex,
        ffn_weight: mx.array | None,
        next_norm: nn.RMSNorm,
    ) -> tuple[mx.array, mx.array]:
        """Run the layer; a sum and the norm after it are one operation on some devices.

        Args:
            x: ``(B * T, D)`` rows.
            normed: The same after this layer's first norm.
            cache: Keys and values so far.
            layer: Index of this layer.
            index: Slots and mask of the step.
            ffn_weight: Replaces the second norm's weight: ``(D,)``, or a row each.
            next_norm: The norm that follows the layer.

        Returns:
            The rows, and the same after ``next_norm``.
        """
        y = self.attention(normed, cache, layer, index)
        weight = self.ffn_norm.weight if ffn_weight is None else ffn_weight
        x, normed = add_norm(x, y, weight, self.ffn_norm.eps)
        return add_norm(x, self.mlp(normed), next_norm.weight, next_norm.eps)

    def fused(self, dtype: mx.Dtype) -> bool:
        """Whether :meth:`few_rows` can be used."""
        if any(norm.weight.dtype != dtype for norm in (self.attention_norm, self.ffn_norm)):
            return False
        forms = [self.attention.packed, self.mlp.packed]
        forms += [packed_form(x, x) for x in (self.attention.o_proj, self.mlp.down_proj)]
        return all(form is not None and products.fits(dtype, *form) for form in forms)

    def few_rows(
        self,
        x: mx.array,
        cache: RingKVCache,
        layer: int,
        index: RingIndex,
        ffn_weight: mx.array | None,
    ) -> mx.array:
        """The layer with its norms and sums inside its products: fewer operations.

        Args:
            x: ``(n, D)`` rows, at most NORM_ROWS.
            cache: Keys and values so far.
            layer: Index of this layer.
            index: Slots of the step, in place.
            ffn_weight: As in :meth:`__call__`.
        """
        norm, ffn_norm = self.attention_norm, self.ffn_norm
        y = self.attention.attend_normed(x, (norm.weight, norm.eps), cache, layer, index)
        x = multiply_added(self.attention.o_proj, y, x)
        weight = ffn_norm.weight if ffn_weight is None else ffn_weight
        return multiply_added(
            self.mlp.down_proj, self.mlp.gate_normed(x, (weight, ffn_norm.eps)), x
        )


class Decoder(nn.Module):
    """Embedding, layers, norm and head.

    Args:
        config: Widths of the network.
    """

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.dim)
        self.layers = [DecoderLayer(config) for _ in range(config.n_layers)]
        self.norm = nn.RMSNorm(config.dim, config.norm_eps)
        if not config.tied_embeddings:
            self.lm_head = nn.Linear(config.dim, config.vocab_size, bias=False)

    @property
    def dtype(self) -> mx.Dtype:
        """Type of the activations."""
        return self.norm.weight.dtype

    def make_cache(
        self,
        max_step: int,
        batch_size: int = 1,
        window: int | None = None,
        kv: KVCacheConfig | None = None,
    ) -> RingKVCache:
        """A fresh cache for steps of at most ``max_step`` positions.

        Args:
            max_step: Most positions of one step.
            batch_size: Rows.
            window: Keys to keep where the model has no window of its own.
            kv: How keys and values are compressed; ``None`` keeps them as they are.
        """
        c = self.config
        store = make_store(c.n_layers, c.n_kv_heads, c.head_dim, self.dtype, kv)
        store.by_host = self.layers[0].attention.by_host
        store.joined = all(layer.attention.joined for layer in self.layers)
        if c.sliding_window is None:
            if window is None:
                raise ValueError("window is needed: this decoder has no sliding window")
            return GrowingKVCache(store, window, batch_size)
        return RingKVCache(store, c.sliding_window, max_step, batch_size, c.rope_theta)

    def conditioning(self, n_delay: int) -> mx.array | None:
        """Weights of every layer's feed-forward norm for a delay in tokens, ``(layers, D)``.

        The scale of the delay is constant, so it is multiplied into the norm's own weight: once,
        in float32, then cast to the model's type. ``None`` for a model without conditioning.
        """
        if self.config.ada_dim is None:
            return None
        t_cond = time_embedding(n_delay, self.config.dim)[None]
        weights = [
            (1.0 + layer.ada_norm(t_cond)) * layer.ffn_norm.weight.astype(mx.float32)
            for layer in self.layers
        ]
        return mx.concatenate(weights).astype(self.dtype)

    def __call__(
        self, x: mx.array, cache: RingKVCache, conditioning: Conditioning = None
    ) -> mx.array:
        """Run the next positions of every row.

        Args:
            x: Input embeddings, ``(B, T, D)``.
            cache: Keys and values so far; advanced by T.
            conditioning: ``(layers, D)`` for all rows alike, or ``(layers, B, D)``; or a list of
                the layers' parts, which spares the taking apart.

        Returns:
            Normalised hidden states, ``(B, T, D)``; :meth:`logits` maps them to the vocabulary.
        """
        B, T, D = x.shape
        index = cache.prepare(T)
        x = x.astype(self.dtype).reshape(B * T, D)
        weights: list[mx.array | None] = [None] * len(self.layers)
        if conditioning is not None:
            weights = list(conditioning)
        norms = [*(layer.attention_norm for layer in self.layers), self.norm]
        few = B * T <= products.NORM_ROWS and index.in_place
        few = few and all(layer.fused(x.dtype) for layer in self.layers)
        normed = x if few else norms[0](x)
        for i, (layer, weight) in enumerate(zip(self.layers, weights, strict=True)):
            if weight is not None and weight.ndim == 2 and T > 1:
                weight = mx.repeat(weight, T, axis=0)
            if few:
                x = layer.few_rows(x, cache, i, index, weight)
            else:
                x, normed = layer(x, normed, cache, i, index, weight, norms[i + 1])
        if few:
            normed = norms[-1](x)
        cache.advance(T)
        return normed.reshape(B, T, D)

    def logits(self, hidden: mx.array) -> mx.array:
        """Scores of the next token, ``(B, T, D) -> (B, T, vocab)``."""
        B, T, D = hidden.shape
        rows = hidden.reshape(B * T, D)
        head = self.embed_tokens if self.config.tied_embeddings else self.lm_head
        if HOST in head:
            return head[HOST](rows).reshape(B, T, -1)
        if UNPACKED in head:
            return (rows @ head[UNPACKED].T).reshape(B, T, -1)
        if type(head) is nn.QuantizedEmbedding and on_cuda():
            return packed_product(rows, head, head).reshape(B, T, -1)
        if mx.issubdtype(head.weight.dtype, mx.floating):
            rows = rows.astype(head.weight.dtype)  # or MLX would widen the whole matrix
        scores = head.as_linear(rows) if self.config.tied_embeddings else head(rows)
        return scores.reshape(B, T, -1)
