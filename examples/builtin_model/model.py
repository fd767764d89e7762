"""Transformers' own VoxtralRealtime classes at a small size, with a banded attention for training.

Knows nothing of data or optimisers.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from common import PHONES, Shape
from torch import Tensor, nn
from transformers import VoxtralRealtimeConfig, VoxtralRealtimeForConditionalGeneration
from transformers.masking_utils import AttentionMaskInterface
from transformers.modeling_utils import AttentionInterface


def band_mask(blocks: int, heads: int, window: int, like: Tensor) -> Tensor:
    """(1, heads * blocks, window, 2 * window): 0 where a query of a block may look, -inf elsewhere.

    The keys of a block are those of the block before it and its own.
    """
    q = torch.arange(window, device=like.device)[:, None]
    k = torch.arange(2 * window, device=like.device)[None]
    seen = (k > q) & (k <= q + window)
    first = seen & (k >= window)
    block = torch.arange(blocks, device=like.device)[:, None, None]
    stack = torch.where(block == 0, first, seen).repeat(heads, 1, 1)
    return torch.where(stack, 0.0, -torch.inf).to(like.dtype)[None]


def banded(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    sliding_window: int,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention over `sliding_window` keys, in blocks; (B, H, T, D) in, (B, T, H, D) out."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    batch, heads, length, dim = query.shape
    if length <= sliding_window:
        out = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)
        return F.dropout(out.transpose(1, 2).contiguous(), dropout), None
    blocks = -(-length // sliding_window)
    extra = blocks * sliding_window - length
    query = F.pad(query, (0, 0, 0, extra)).reshape(batch, heads * blocks, sliding_window, dim)

    def pairs(x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, sliding_window, extra)).reshape(
            batch, heads, blocks + 1, sliding_window, dim
        )
        return torch.cat((x[:, :, :-1], x[:, :, 1:]), 3).reshape(
            batch, heads * blocks, 2 * sliding_window, dim
        )

    mask = band_mask(blocks, heads, sliding_window, query)
    out = F.scaled_dot_product_attention(
        query, pairs(key), pairs(value), attn_mask=mask, scale=scaling
    )
    out = out.reshape(batch, heads, blocks * sliding_window, dim)[:, :, :length]
    return F.dropout(out.transpose(1, 2).contiguous(), dropout), None


AttentionInterface.register("banded", banded)
AttentionMaskInterface.register("banded", lambda *args, **kwargs: None)


def config(shape: Shape) -> VoxtralRealtimeConfig:
    """The Transformers configuration of a shape."""
    rope = {"rope_type": "default", "rope_theta": 1e6}
    return VoxtralRealtimeConfig(
        audio_config=dict(
            model_type="voxtral_realtime_encoder",
            hidden_size=shape.enc_dim,
            intermediate_size=shape.enc_hidden,
            num_hidden_layers=shape.enc_layers,
            num_attention_heads=shape.enc_heads,
            head_dim=shape.head_dim,
            num_mel_bins=128,
            rms_norm_eps=1e-5,
            sliding_window=shape.enc_window,
            vocab_size=shape.vocab,
            rope_parameters=dict(rope),
        ),
        text_config=dict(
            model_type="voxtral_realtime_text",
            vocab_size=shape.vocab,
            hidden_size=shape.dec_dim,
            intermediate_size=shape.dec_hidden,
            num_hidden_layers=shape.dec_layers,
            num_attention_heads=shape.dec_heads,
            num_key_value_heads=shape.dec_kv_heads,
            head_dim=shape.head_dim,
            rms_norm_eps=1e-5,
            sliding_window=shape.dec_window,
            max_position_embeddings=131072,
            tie_word_embeddings=True,
            rope_parameters=dict(rope),
        ),
        downsample_factor=4,
        audio_length_per_tok=8,
        default_num_delay_tokens=6,
        tie_word_embeddings=True,
    )


class DroppedSilu(nn.Module):
    """SiLU, then dropout."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return F.dropout(F.silu(x), self.share, self.training)


class Trainee(nn.Module):
    """The reference model and, for training only, classifiers of its encoder's frames.

    One names phones, another gives a teacher's vectors, `teacher` numbers wide.
    """

    def __init__(self, shape: Shape, teacher: int = 0) -> None:
        super().__init__()
        self.shape = shape
        self.voxtral = VoxtralRealtimeForConditionalGeneration(config(shape))
        self.phones = nn.Linear(shape.enc_dim, len(PHONES))
        self.copy = nn.Linear(shape.enc_dim, teacher) if teacher else nn.Identity()
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Initial weights: small residual branches, embeddings that the tied head can use."""
        layers = self.shape.enc_layers + self.shape.dec_layers
        for name, p in self.named_parameters():
            if p.ndim < 2:
                continue
            if "embed_tokens" in name or "lm_head" in name:
                p.normal_(0, 0.05)
            elif "conv" in name:
                p.normal_(0, (2.0 / (p.shape[1] * 3)) ** 0.5)
            elif "ada_rms_norm.linear2" in name:
                p.zero_()
            else:
                p.normal_(0, (1.0 / p.shape[1]) ** 0.5)
                if "o_proj" in name or "down_proj" in name:
                    p.mul_((2 * layers) ** -0.5)
        self.voxtral.tie_weights()

    def attention(self, kind: str) -> None:
        """Use 'banded' (training) or 'sdpa' (Transformers' own, with caches)."""
        self.voxtral.set_attn_implementation(kind)

    def encode(self, mel: Tensor) -> Tensor:
        """(B, 128, F) log-mel to (B, F / 2, enc_dim)."""
        tower = self.voxtral.model.audio_tower
        frames = tower.embedder(
            mel
        ).float()  # float32 residuals and rotary angles, also under autocast
        return tower(inputs_embeds=frames, use_cache=False).last_hidden_state

    def adapt(self, hidden: Tensor) -> Tensor:
        """(B, 4 T, enc_dim) to (B, T, dec_dim)."""
        return self.voxtral.model.multi_modal_projector(
            hidden.reshape(hidden.shape[0], -1, 4 * hidden.shape[2])
        )

    def condition(self, delays: Tensor) -> Tensor:
        """(B,) delays in tokens to (B, 1, dec_dim)."""
        angle = delays.float()[:, None] * self.voxtral.model.time_embedding.inv_freq.float()[None]
        return torch.cat((angle.cos(), angle.sin()), 1)[:, None]

    def decode(self, tokens: Tensor, audio: Tensor, delays: Tensor) -> Tensor:
        """Teacher-forced logits (B, T, vocab)."""
        core = self.voxtral.model
        x = core.language_model.embed_tokens(tokens) + audio.float()
        out = core.language_model(inputs_embeds=x, t_cond=self.condition(delays), use_cache=False)
        return self.voxtral.lm_head(out.last_hidden_state)

    def drop(self, share: float) -> None:
        """Dropout before the last matrix of every attention and MLP, while training."""
        core = self.voxtral.model
        for layer in [*core.audio_tower.layers, *core.language_model.layers]:
            layer.self_attn.attention_dropout = share
            layer.mlp.act_fn = DroppedSilu(share)

    def compile_layers(self) -> None:
        """Compile each kind of layer once; all layers of a kind share the code."""
        core = self.voxtral.model
        for layer in [*core.audio_tower.layers, *core.language_model.layers]:
            layer.compile()
        core.multi_modal_projector.compile()


def log_mel(samples: Tensor, filters: Tensor) -> Tensor:
    """(B, n) audio to (B, 128, n / 160), as VoxtralRealtimeFeatureExtractor computes it."""
    window = torch.hann_window(400, device=samples.device)
    power = (
        torch.stft(samples, 400, 160, window=window, return_complex=True)[..., :-1].abs().square()
    )
    mel = (filters.T @ power).clamp_min(1e-10).log10()
    return (mel.clamp_min(1.5 - 8.0) + 4.0) / 4.0


def mel_filters(device: torch.device | str) -> Tensor:
    """(201, 128) float32, the feature extractor's own."""
    from transformers import VoxtralRealtimeFeatureExtractor

    return torch.from_numpy(VoxtralRealtimeFeatureExtractor().mel_filters).to(device, torch.float32)
