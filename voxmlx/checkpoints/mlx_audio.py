"""The layout of mlx-audio, which is also the one that voxmlx-convert writes.

Names and keys are those that mlx-audio 0.6 reads (``stt/models/voxtral_realtime``). Rows and
convolutions are as inside the package.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from voxmlx.checkpoints.config_file import Section
from voxmlx.checkpoints.hf import TRANSFORMERS
from voxmlx.checkpoints.layout import ConfigFormat, Layout, Shapes
from voxmlx.checkpoints.mistral import (
    ATTENTION,
    FEED_FORWARD,
    MISTRAL_REALTIME,
    REALTIME,
    read_audio,
    read_decoder,
    read_encoder,
)
from voxmlx.checkpoints.names import NameMap
from voxmlx.config import ModelConfig


def _layer_names(inside: str, outside: str) -> list[tuple[str, str]]:
    norms = [(f"{inside}.{n}", f"{outside}.{n}") for n in ("attention_norm", "ffn_norm")]
    attention = [(f"{inside}.attention.{a}", f"{outside}.attention.{b}") for a, b in ATTENTION]
    mlp = [(f"{inside}.mlp.{a}", f"{outside}.feed_forward_{b}") for a, b in FEED_FORWARD]
    return norms + attention + mlp


_ADA = "decoder.layers.{}.ada_rms_norm_t_cond"
_REALTIME_NAMES = NameMap(
    [
        ("encoder.conv1", "encoder.conv_layers_0_conv.conv"),
        ("encoder.conv2", "encoder.conv_layers_1_conv.conv"),
        *_layer_names("encoder.layers.{}", "encoder.transformer_layers.{}"),
        ("encoder.norm", "encoder.transformer_norm"),
        ("adapter.linear_1", "encoder.audio_language_projection_0"),
        ("adapter.linear_2", "encoder.audio_language_projection_2"),
        ("decoder.embed_tokens", "decoder.tok_embeddings"),
        *_layer_names("decoder.layers.{}", "decoder.layers.{}"),
        ("decoder.layers.{}.ada_norm.linear_1", f"{_ADA}.ada_down"),
        ("decoder.layers.{}.ada_norm.linear_2", f"{_ADA}.ada_up"),
        ("decoder.norm", "decoder.norm"),
    ]
)


def _read_config(config: Section, shapes: Shapes) -> ModelConfig:
    encoder_args = config.section("encoder_args")
    decoder_args = config.section("decoder")
    holder = config if "audio_encoding_args" in config else encoder_args
    audio = read_audio(
        holder.section("audio_encoding_args")
        if "audio_encoding_args" in holder
        else Section({}, f"{encoder_args.where}, audio_encoding_args")
    )
    result = ModelConfig(
        model_type=REALTIME,
        audio=audio,
        encoder=read_encoder(encoder_args),
        decoder=read_decoder(decoder_args, shapes),
        downsample_factor=encoder_args.get("downsample_factor", int, 4),
        n_left_pad_tokens=config.get("n_left_pad_tokens", int, 32),
        delay_ms=config.get("transcription_delay_ms", int, 480),
    )
    encoder_args.report_unread()
    decoder_args.report_unread()
    return result


def _is_mlx_audio(values: Mapping[str, Any]) -> bool:
    return "encoder_args" in values or "decoder" in values


def write_config(config: ModelConfig) -> dict[str, Any]:
    """The keys of ``config.json``, quantisation apart."""
    audio, encoder, decoder = config.audio, config.encoder, config.decoder
    return {
        "model_type": REALTIME,
        "encoder_args": {
            "audio_encoding_args": {
                "sampling_rate": audio.sample_rate,
                "frame_rate": audio.frame_rate,
                "num_mel_bins": audio.n_mels,
                "hop_length": audio.hop_length,
                "window_size": audio.window_size,
                "global_log_mel_max": audio.global_log_mel_max,
                "transcription_format": "streaming",
            },
            **dataclasses.asdict(encoder),
            "n_kv_heads": encoder.n_kv_heads,
            "causal": True,
            "use_biases": True,
            "downsample_factor": config.downsample_factor,
        },
        "decoder": {
            **{k: v for k, v in dataclasses.asdict(decoder).items() if k != "ada_dim"},
            "ada_rms_norm_t_cond": True,
            "ada_rms_norm_t_cond_dim": decoder.ada_dim,
        },
        "transcription_delay_ms": config.delay_ms,
        "n_left_pad_tokens": config.n_left_pad_tokens,
    }


MLX_AUDIO = ConfigFormat("mlx-audio config.json", _is_mlx_audio, _read_config)

MLX_AUDIO_REALTIME = Layout(
    name="mlx-audio",
    model_type=REALTIME,
    mark=re.compile(r"encoder\.transformer_layers\.|decoder\.tok_embeddings\."),
    names=_REALTIME_NAMES,
    config_formats=(MLX_AUDIO, TRANSFORMERS),
    write_config=write_config,
)

MISTRAL_IN_MLX_AUDIO = dataclasses.replace(
    MISTRAL_REALTIME,
    name="mlx-audio with Mistral's names",
    config_formats=(MLX_AUDIO, TRANSFORMERS),
)
"""What an early converter wrote: Mistral's names beside mlx-audio's configuration."""
