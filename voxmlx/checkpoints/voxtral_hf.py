"""Transformers' and mlx-audio's files of the offline model; both name tensors alike.

mlx-audio 0.6 (``stt/models/voxtral``) keeps convolutions as inside the package and reads the older
names of Whisper's configuration keys. It is also what voxmlx-convert writes. The rows of the
decoder's q and k are ordered by halves of the rotary pairs; the encoder has no rotary positions.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import mlx.core as mx

from voxmlx.checkpoints.config_file import Section
from voxmlx.checkpoints.hf import decoder_widths, layer_names, rope_theta
from voxmlx.checkpoints.layout import ConfigFormat, Layout, Shapes
from voxmlx.checkpoints.names import NameMap
from voxmlx.checkpoints.voxtral_mistral import ROPE_THETA, VOXTRAL
from voxmlx.config import AudioConfig, DecoderConfig, ModelConfig, WhisperEncoderConfig
from voxmlx.models.whisper_encoder import sinusoids

_TOWER = "audio_tower.layers.{}"
_DECODER = "language_model.model"
_POSITIONS = "audio_tower.embed_positions.weight"

_NAMES = NameMap(
    [
        ("encoder.conv1", "audio_tower.conv1"),
        ("encoder.conv2", "audio_tower.conv2"),
        *(
            (f"encoder.layers.{{}}.attention.{p}_proj", f"{_TOWER}.self_attn.{p}_proj")
            for p in "qkv"
        ),
        ("encoder.layers.{}.attention.o_proj", f"{_TOWER}.self_attn.out_proj"),
        ("encoder.layers.{}.attention_norm", f"{_TOWER}.self_attn_layer_norm"),
        ("encoder.layers.{}.ffn_norm", f"{_TOWER}.final_layer_norm"),
        ("encoder.layers.{}.mlp.up_proj", f"{_TOWER}.fc1"),
        ("encoder.layers.{}.mlp.down_proj", f"{_TOWER}.fc2"),
        ("encoder.norm", "audio_tower.layer_norm"),
        ("adapter.linear_1", "multi_modal_projector.linear_1"),
        ("adapter.linear_2", "multi_modal_projector.linear_2"),
        ("decoder.embed_tokens", f"{_DECODER}.embed_tokens"),
        *layer_names(
            "decoder.layers.{}",
            f"{_DECODER}.layers.{{}}",
            ("input_layernorm", "post_attention_layernorm"),
        ),
        ("decoder.norm", f"{_DECODER}.norm"),
        ("decoder.lm_head", "language_model.lm_head"),
    ]
)


def _read_encoder(args: Section) -> WhisperEncoderConfig:
    dim, n_heads = _either(args, "hidden_size", "d_model"), _heads(args)
    args.expect("num_key_value_heads", n_heads)
    args.expect("activation_function", "gelu")
    args.expect("scale_embedding", False)
    return WhisperEncoderConfig(
        dim=dim,
        n_layers=_either(args, "num_hidden_layers", "encoder_layers"),
        n_heads=n_heads,
        head_dim=args.get("head_dim", int, dim // n_heads),
        hidden_dim=_either(args, "intermediate_size", "encoder_ffn_dim"),
        n_positions=args.get("max_source_positions", int, 1500),
    )


def _heads(args: Section) -> int:
    return _either(args, "num_attention_heads", "encoder_attention_heads")


def _either(args: Section, key: str, older: str) -> int:
    return args.get(key if key in args or older not in args else older, int)


def _read_decoder(args: Section) -> DecoderConfig:
    args.expect("hidden_act", "silu")
    args.expect("tie_word_embeddings", False)
    args.expect("attention_bias", False)
    args.expect("mlp_bias", False)
    args.expect("sliding_window", None)
    return DecoderConfig(
        **decoder_widths(args),
        sliding_window=None,
        norm_eps=args.get("rms_norm_eps", float, 1e-5),
        rope_theta=rope_theta(args, ROPE_THETA),
        tied_embeddings=False,
    )


def _read_config(config: Section, shapes: Shapes) -> ModelConfig:
    audio_args = config.section("audio_config")
    config.expect("projector_hidden_act", "gelu")
    return ModelConfig(
        model_type=VOXTRAL,
        audio=AudioConfig(n_mels=audio_args.get("num_mel_bins", int, 128), global_log_mel_max=None),
        encoder=_read_encoder(audio_args),
        decoder=_read_decoder(config.section("text_config")),
    )


def _is_voxtral(values: Mapping[str, Any]) -> bool:
    return "audio_config" in values and values.get("model_type", VOXTRAL) == VOXTRAL


def _rotary_heads(config: ModelConfig) -> Mapping[str, int]:
    return {
        "decoder.layers.{}.attention.q_proj": config.decoder.n_heads,
        "decoder.layers.{}.attention.k_proj": config.decoder.n_kv_heads,
    }


def _write_config(config: ModelConfig) -> dict[str, Any]:
    encoder, decoder = config.encoder, config.decoder
    return {
        "architectures": ["VoxtralForConditionalGeneration"],
        "model_type": VOXTRAL,
        "audio_token_id": 24,
        "projector_hidden_act": "gelu",
        "audio_config": {
            "model_type": "voxtral_encoder",
            "hidden_size": encoder.dim,
            "d_model": encoder.dim,
            "num_hidden_layers": encoder.n_layers,
            "encoder_layers": encoder.n_layers,
            "num_attention_heads": encoder.n_heads,
            "encoder_attention_heads": encoder.n_heads,
            "num_key_value_heads": encoder.n_heads,
            "head_dim": encoder.head_dim,
            "intermediate_size": encoder.hidden_dim,
            "encoder_ffn_dim": encoder.hidden_dim,
            "num_mel_bins": config.audio.n_mels,
            "max_source_positions": _n_positions(config),
            "activation_function": "gelu",
            "scale_embedding": False,
        },
        "text_config": {
            "model_type": "llama",
            "hidden_size": decoder.dim,
            "num_hidden_layers": decoder.n_layers,
            "num_attention_heads": decoder.n_heads,
            "num_key_value_heads": decoder.n_kv_heads,
            "head_dim": decoder.head_dim,
            "intermediate_size": decoder.hidden_dim,
            "vocab_size": decoder.vocab_size,
            "rms_norm_eps": decoder.norm_eps,
            "rope_theta": decoder.rope_theta,
            "max_position_embeddings": 131072,  # the published value
            "hidden_act": "silu",
            "sliding_window": None,
            "tie_word_embeddings": False,
        },
    }


def _n_positions(config: ModelConfig) -> int:
    if not isinstance(config.encoder, WhisperEncoderConfig):
        raise TypeError(f"{VOXTRAL} needs a Whisper encoder, got {config.encoder!r}")
    return config.encoder.n_positions


def _position_table(config: ModelConfig) -> Mapping[str, mx.array]:
    return {_POSITIONS: sinusoids(_n_positions(config), config.encoder.dim)}


HF_VOXTRAL = Layout(
    name="Transformers",
    model_type=VOXTRAL,
    mark=re.compile(r"(model\.)?audio_tower\.conv1\."),
    names=_NAMES,
    config_formats=(ConfigFormat("config.json of voxtral", _is_voxtral, _read_config),),
    half_split_heads=_rotary_heads,
    kernel_last=True,
    aliases=(
        (re.compile(r"^model\.(?=audio_tower\.|multi_modal_projector\.|language_model\.)"), ""),
        (re.compile(r"^language_model\.(?!model\.|lm_head$)"), f"{_DECODER}."),
        (re.compile(r"^lm_head$"), "language_model.lm_head"),
    ),
    unused=re.compile(r"audio_tower\.embed_positions\.weight$|\.inv_freq$"),
)

MLX_AUDIO_VOXTRAL = dataclasses.replace(
    HF_VOXTRAL,
    name="mlx-audio",
    kernel_last=False,
    write_config=_write_config,
    plain_parts=frozenset({"encoder"}),
    derived=_position_table,
)
"""The same names with convolutions as inside the package; for writing."""
