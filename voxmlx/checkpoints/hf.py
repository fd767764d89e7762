"""Transformers' files: ``model*.safetensors`` and ``config.json``.

Transformers orders the rows of q and k by halves of the rotary pairs, in the encoder and the
decoder, weights and biases alike (``modeling_voxtral_realtime.py`` of Transformers 5.23).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from voxmlx.checkpoints.config_file import Section
from voxmlx.checkpoints.layout import ConfigFormat, Layout, Shapes
from voxmlx.checkpoints.mistral import REALTIME, ada_dim
from voxmlx.checkpoints.names import NameMap
from voxmlx.config import AudioConfig, DecoderConfig, EncoderConfig, ModelConfig

_PROJECTIONS = (
    *(f"attention.{p}" for p in ("q_proj", "k_proj", "v_proj", "o_proj")),
    *(f"mlp.{p}" for p in ("gate_proj", "up_proj", "down_proj")),
)


def layer_names(inside: str, outside: str, norms: tuple[str, str]) -> list[tuple[str, str]]:
    """Pairs of module paths of one layer of Llama's shape; ``norms`` are its outside names."""
    return [
        (f"{inside}.attention_norm", f"{outside}.{norms[0]}"),
        (f"{inside}.ffn_norm", f"{outside}.{norms[1]}"),
        *(
            (f"{inside}.{p}", f"{outside}.{p.replace('attention.', 'self_attn.')}")
            for p in _PROJECTIONS
        ),
    ]


_DECODER = "language_model.model"
_REALTIME_NAMES = NameMap(
    [
        ("encoder.conv1", "audio_tower.embedder.conv1"),
        ("encoder.conv2", "audio_tower.embedder.conv2"),
        *layer_names(
            "encoder.layers.{}",
            "audio_tower.layers.{}",
            ("self_attn_layer_norm", "final_layer_norm"),
        ),
        ("encoder.norm", "audio_tower.norm"),
        ("adapter.linear_1", "multi_modal_projector.linear_1"),
        ("adapter.linear_2", "multi_modal_projector.linear_2"),
        ("decoder.embed_tokens", f"{_DECODER}.embed_tokens"),
        *layer_names(
            "decoder.layers.{}",
            f"{_DECODER}.layers.{{}}",
            ("input_layernorm", "post_attention_layernorm"),
        ),
        (
            "decoder.layers.{}.ada_norm.linear_1",
            f"{_DECODER}.layers.{{}}.ada_rms_norm.linear1",
        ),
        (
            "decoder.layers.{}.ada_norm.linear_2",
            f"{_DECODER}.layers.{{}}.ada_rms_norm.linear2",
        ),
        ("decoder.norm", f"{_DECODER}.norm"),
    ]
)


def rope_theta(args: Section, default: float = 1e6) -> float:
    """The base of the rotary angles in the older and the newer spelling.

    Raises:
        ConfigError: If the angles are scaled, which no Voxtral does.
    """
    args.expect("rope_scaling", None)
    if "rope_parameters" not in args:
        return args.get("rope_theta", float, default)
    parameters = args.section("rope_parameters")
    parameters.expect("rope_type", "default")
    return parameters.get("rope_theta", float, default)


def read_encoder(args: Section) -> EncoderConfig:
    """Read ``audio_config`` of the realtime model."""
    n_heads = args.get("num_attention_heads", int)
    args.expect("num_key_value_heads", n_heads)
    args.expect("activation_function", "gelu")
    args.expect("hidden_act", "silu")
    return EncoderConfig(
        dim=args.get("hidden_size", int),
        n_layers=args.get("num_hidden_layers", int),
        n_heads=n_heads,
        head_dim=args.get("head_dim", int),
        hidden_dim=args.get("intermediate_size", int),
        sliding_window=args.get("sliding_window", int),
        norm_eps=args.get("rms_norm_eps", float, 1e-5),
        rope_theta=rope_theta(args),
    )


def decoder_widths(args: Section) -> dict[str, Any]:
    """Sizes in ``text_config``, as arguments of :class:`DecoderConfig`."""
    keys = {
        "dim": "hidden_size",
        "n_layers": "num_hidden_layers",
        "n_heads": "num_attention_heads",
        "n_kv_heads": "num_key_value_heads",
        "head_dim": "head_dim",
        "hidden_dim": "intermediate_size",
        "vocab_size": "vocab_size",
    }
    return {name: args.get(key, int) for name, key in keys.items()}


def read_decoder(args: Section, shapes: Shapes) -> DecoderConfig:
    """Read ``text_config`` of the realtime model."""
    args.expect("hidden_act", "silu")
    args.expect("tie_word_embeddings", True)
    return DecoderConfig(
        **decoder_widths(args),
        sliding_window=args.get("sliding_window", int),
        norm_eps=args.get("rms_norm_eps", float, 1e-5),
        rope_theta=rope_theta(args),
        ada_dim=ada_dim(args, shapes),
    )


def _read_config(config: Section, shapes: Shapes) -> ModelConfig:
    audio_args = config.section("audio_config")
    config.expect("projector_hidden_act", "gelu")
    audio = AudioConfig(n_mels=audio_args.get("num_mel_bins", int, 128))
    n_delay = config.get("default_num_delay_tokens", int, 6)
    return ModelConfig(
        model_type=REALTIME,
        audio=audio,
        encoder=read_encoder(audio_args),
        decoder=read_decoder(config.section("text_config"), shapes),
        downsample_factor=config.get("downsample_factor", int, 4),
        delay_ms=round(n_delay * audio.token_ms),
    )


def write_config(config: ModelConfig) -> dict[str, Any]:
    """Content of ``config.json``; the width of the delay's part is a literal of Transformers."""
    encoder, decoder = config.encoder, config.decoder
    return {
        "architectures": ["VoxtralRealtimeForConditionalGeneration"],
        "model_type": REALTIME,
        "audio_config": {
            "model_type": "voxtral_realtime_encoder",
            "num_mel_bins": config.audio.n_mels,
            "vocab_size": decoder.vocab_size,
            **_written_widths(encoder),
        },
        "text_config": {
            "model_type": "voxtral_realtime_text",
            "vocab_size": decoder.vocab_size,
            "num_key_value_heads": decoder.n_kv_heads,
            "tie_word_embeddings": decoder.tied_embeddings,
            **_written_widths(decoder),
        },
        "downsample_factor": config.downsample_factor,
        "default_num_delay_tokens": round(config.delay_ms / config.audio.token_ms),
        "projector_hidden_act": "gelu",
        "tie_word_embeddings": decoder.tied_embeddings,
    }


def _written_widths(part: Any) -> dict[str, Any]:
    return {
        "hidden_size": part.dim,
        "intermediate_size": part.hidden_dim,
        "num_hidden_layers": part.n_layers,
        "num_attention_heads": part.n_heads,
        "head_dim": part.head_dim,
        "sliding_window": part.sliding_window,
        "rms_norm_eps": part.norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": part.rope_theta},
    }


def _is_realtime(values: Mapping[str, Any]) -> bool:
    return "audio_config" in values and values.get("model_type", REALTIME) == REALTIME


def _rotary_heads(config: ModelConfig) -> Mapping[str, int]:
    return {
        "encoder.layers.{}.attention.q_proj": config.encoder.n_heads,
        "encoder.layers.{}.attention.k_proj": config.encoder.n_kv_heads,
        "decoder.layers.{}.attention.q_proj": config.decoder.n_heads,
        "decoder.layers.{}.attention.k_proj": config.decoder.n_kv_heads,
    }


TRANSFORMERS = ConfigFormat("transformers config.json", _is_realtime, _read_config)

PREFIX_ALIASES = (
    (re.compile(r"^model\.(?=audio_tower\.|multi_modal_projector\.|language_model\.)"), ""),
    (re.compile(r"^language_model\.(?!model\.)"), "language_model.model."),
    (re.compile(r"^language_model\.model\.model\."), "language_model.model."),
)
"""In memory, and in older files, names begin with ``model.`` and lack the inner one; files that
``save_pretrained`` of Transformers 5.17 writes have the inner one twice."""

HF_REALTIME = Layout(
    name="Transformers",
    model_type=REALTIME,
    mark=re.compile(r"(model\.)?audio_tower\.embedder\."),
    names=_REALTIME_NAMES,
    config_formats=(TRANSFORMERS,),
    half_split_heads=_rotary_heads,
    kernel_last=True,
    aliases=PREFIX_ALIASES,
    write_config=write_config,
    unused=re.compile(r"(^|\.)lm_head\.weight$|\.inv_freq$"),  # tied head; derived tables
)
