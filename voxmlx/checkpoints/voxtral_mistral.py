"""Mistral's own files of the offline model: ``consolidated.safetensors`` and ``params.json``.

Names and values are those of Voxtral-Mini-3B-2507. Only the decoder has rotary positions, and its
rows are as inside the package.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from voxmlx.checkpoints.config_file import Section
from voxmlx.checkpoints.layout import ConfigFormat, Layout, Shapes
from voxmlx.checkpoints.mistral import ATTENTION, decoder_widths, layer_names
from voxmlx.checkpoints.names import NameMap
from voxmlx.config import AudioConfig, DecoderConfig, ModelConfig, WhisperEncoderConfig

VOXTRAL = "voxtral"
ROPE_THETA = 1e8

_EMBEDDINGS = "mm_whisper_embeddings"
_WHISPER = f"{_EMBEDDINGS}.whisper_encoder"
_LAYER = f"{_WHISPER}.transformer.layers.{{}}"

_NAMES = NameMap(
    [
        ("encoder.conv1", f"{_WHISPER}.conv_layers.0"),
        ("encoder.conv2", f"{_WHISPER}.conv_layers.1"),
        *((f"encoder.layers.{{}}.attention.{a}", f"{_LAYER}.attention.{b}") for a, b in ATTENTION),
        *((f"encoder.layers.{{}}.{n}", f"{_LAYER}.{n}") for n in ("attention_norm", "ffn_norm")),
        ("encoder.layers.{}.mlp.up_proj", f"{_LAYER}.feed_forward.w1"),
        ("encoder.layers.{}.mlp.down_proj", f"{_LAYER}.feed_forward.w2"),
        ("encoder.norm", f"{_WHISPER}.transformer.norm"),
        ("adapter.linear_1", f"{_EMBEDDINGS}.audio_language_projection.0"),
        ("adapter.linear_2", f"{_EMBEDDINGS}.audio_language_projection.2"),
        ("decoder.embed_tokens", f"{_EMBEDDINGS}.tok_embeddings"),
        *layer_names("decoder.layers.{}", "layers.{}"),
        ("decoder.norm", "norm"),
        ("decoder.lm_head", "output"),
    ]
)


def _read_audio(args: Section) -> AudioConfig:
    config = AudioConfig(
        sample_rate=args.get("sampling_rate", int, 16000),
        n_mels=args.get("num_mel_bins", int, 128),
        hop_length=args.get("hop_length", int, 160),
        window_size=args.get("window_size", int, 400),
        frame_rate=args.get("frame_rate", float, 12.5),
        global_log_mel_max=None,
    )
    args.ignore("chunk_length_s", "global_log_mel_max")
    args.expect("transcription_format", "instruct")
    args.report_unread()
    return config


def _read_encoder(args: Section) -> WhisperEncoderConfig:
    n_heads = args.get("n_heads", int)
    for key, value in {"causal": False, "use_biases": True, "n_kv_heads": n_heads}.items():
        args.expect(key, value)
    args.ignore("vocab_size", "use_cache", "pos_embed", "ffn_type", "norm_type", "rope_theta")
    return WhisperEncoderConfig(
        dim=args.get("dim", int),
        n_layers=args.get("n_layers", int),
        n_heads=n_heads,
        head_dim=args.get("head_dim", int),
        hidden_dim=args.get("hidden_dim", int),
        n_positions=args.get("max_source_positions", int, 1500),
        norm_eps=args.get("norm_eps", float, 1e-5),
    )


def _read_decoder(args: Section) -> DecoderConfig:
    for key, value in {"use_biases": False, "causal": True, "tied_embeddings": False}.items():
        args.expect(key, value)
    args.ignore("model_parallel", "model_max_length", "max_position_embeddings", "max_seq_len")
    args.expect("sliding_window", None)
    return DecoderConfig(
        **decoder_widths(args),
        sliding_window=None,
        norm_eps=args.get("norm_eps", float, 1e-5),
        rope_theta=args.get("rope_theta", float, ROPE_THETA),
        tied_embeddings=False,
    )


def _read_params(params: Section, shapes: Shapes) -> ModelConfig:
    args = params.section("multimodal").section("whisper_model_args")
    encoder_args = args.section("encoder_args")
    config = ModelConfig(
        model_type=VOXTRAL,
        audio=_read_audio(encoder_args.section("audio_encoding_args")),
        encoder=_read_encoder(encoder_args),
        decoder=_read_decoder(params),
        downsample_factor=args.section("downsample_args").get("downsample_factor", int),
    )
    params.ignore("quantization", "quantization_config")
    encoder_args.report_unread()
    params.report_unread()
    return config


def _has_params(values: Mapping[str, Any]) -> bool:
    return "multimodal" in values


MISTRAL_VOXTRAL = Layout(
    name="Mistral",
    model_type=VOXTRAL,
    mark=re.compile(r"mm_whisper_embeddings\."),
    names=_NAMES,
    config_formats=(ConfigFormat("params.json", _has_params, _read_params),),
    kernel_last=True,
)
