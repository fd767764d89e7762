"""Mistral's own files: ``consolidated.safetensors`` and ``params.json``.

Names and values are those of Voxtral-Mini-4B-Realtime-2602. Rows and layers are as inside the
package; only convolutions have their kernel last.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from voxmlx.checkpoints.config_file import Section
from voxmlx.checkpoints.layout import ConfigFormat, Layout, Shapes
from voxmlx.checkpoints.names import NameMap
from voxmlx.config import AudioConfig, DecoderConfig, EncoderConfig, ModelConfig
from voxmlx.errors import ConfigError

REALTIME = "voxtral_realtime"

ADA_WEIGHT = "decoder.layers.0.ada_norm.linear_1.weight"
"""Its rows are the width of the delay conditioning, where a configuration does not say it."""

_EMBEDDINGS = "mm_streams_embeddings.embedding_module"
_WHISPER = f"{_EMBEDDINGS}.whisper_encoder"
ATTENTION = (("q_proj", "wq"), ("k_proj", "wk"), ("v_proj", "wv"), ("o_proj", "wo"))
FEED_FORWARD = (("gate_proj", "w1"), ("down_proj", "w2"), ("up_proj", "w3"))


def layer_names(inside: str, outside: str) -> list[tuple[str, str]]:
    """Pairs of module paths of one gated layer."""
    norms = [(f"{inside}.{n}", f"{outside}.{n}") for n in ("attention_norm", "ffn_norm")]
    attention = [(f"{inside}.attention.{a}", f"{outside}.attention.{b}") for a, b in ATTENTION]
    mlp = [(f"{inside}.mlp.{a}", f"{outside}.feed_forward.{b}") for a, b in FEED_FORWARD]
    return norms + attention + mlp


REALTIME_NAMES = (
    ("encoder.conv1", f"{_WHISPER}.conv_layers.0.conv"),
    ("encoder.conv2", f"{_WHISPER}.conv_layers.1.conv"),
    *layer_names("encoder.layers.{}", f"{_WHISPER}.transformer.layers.{{}}"),
    ("encoder.norm", f"{_WHISPER}.transformer.norm"),
    ("adapter.linear_1", f"{_EMBEDDINGS}.audio_language_projection.0"),
    ("adapter.linear_2", f"{_EMBEDDINGS}.audio_language_projection.2"),
    ("decoder.embed_tokens", f"{_EMBEDDINGS}.tok_embeddings"),
    *layer_names("decoder.layers.{}", "layers.{}"),
    ("decoder.layers.{}.ada_norm.linear_1", "layers.{}.ada_rms_norm_t_cond.0"),
    ("decoder.layers.{}.ada_norm.linear_2", "layers.{}.ada_rms_norm_t_cond.2"),
    ("decoder.norm", "norm"),
)
"""Module paths, internal and external."""


def read_audio(args: Section) -> AudioConfig:
    """Read ``audio_encoding_args``."""
    args.ignore("chunk_length_s")
    args.expect("transcription_format", "streaming")
    config = AudioConfig(
        sample_rate=args.get("sampling_rate", int, 16000),
        n_mels=args.get("num_mel_bins", int, 128),
        hop_length=args.get("hop_length", int, 160),
        window_size=args.get("window_size", int, 400),
        frame_rate=args.get("frame_rate", float, 12.5),
        global_log_mel_max=args.get("global_log_mel_max", float, 1.5),
    )
    args.report_unread()
    return config


def read_encoder(args: Section) -> EncoderConfig:
    """Read ``encoder_args`` of the realtime model."""
    n_heads = args.get("n_heads", int)
    for key, value in {
        "causal": True,
        "use_biases": True,
        "pos_embed": "rope",
        "ffn_type": "swiglu",
        "norm_type": "rms_norm",
        "n_kv_heads": n_heads,
    }.items():
        args.expect(key, value)
    args.ignore("vocab_size", "use_cache", "max_source_positions")
    return EncoderConfig(
        dim=args.get("dim", int),
        n_layers=args.get("n_layers", int),
        n_heads=n_heads,
        head_dim=args.get("head_dim", int),
        hidden_dim=args.get("hidden_dim", int),
        sliding_window=args.get("sliding_window", int),
        norm_eps=args.get("norm_eps", float, 1e-5),
        rope_theta=args.get("rope_theta", float, 1e6),
    )


def decoder_widths(args: Section) -> dict[str, Any]:
    """The decoder's sizes, as arguments of :class:`DecoderConfig`."""
    names = ("dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "hidden_dim", "vocab_size")
    return {name: args.get(name, int) for name in names}


def read_decoder(args: Section, shapes: Shapes) -> DecoderConfig:
    """Read the decoder's keys of the realtime model."""
    for key, value in {
        "use_biases": False,
        "causal": True,
        "tied_embeddings": True,
        "ada_rms_norm_t_cond": True,
    }.items():
        args.expect(key, value)
    args.ignore("model_parallel", "model_max_length", "max_position_embeddings", "max_seq_len")
    return DecoderConfig(
        **decoder_widths(args),
        sliding_window=args.get("sliding_window", int),
        norm_eps=args.get("norm_eps", float, 1e-5),
        rope_theta=args.get("rope_theta", float, 1e6),
        ada_dim=args.get("ada_rms_norm_t_cond_dim", int, ada_dim(args, shapes)),
    )


def ada_dim(args: Section, shapes: Shapes) -> int:
    """Width of the delay conditioning, from the tensors.

    Raises:
        ConfigError: If the checkpoint has no delay conditioning.
    """
    shape = shapes.get(ADA_WEIGHT)
    if shape is None:
        raise ConfigError(f"{args.where}: the model has no tensors for its delay conditioning")
    return shape[0]


def _read_params(params: Section, shapes: Shapes) -> ModelConfig:
    args = params.section("multimodal").section("whisper_model_args")
    encoder_args = args.section("encoder_args")
    config = ModelConfig(
        model_type=REALTIME,
        audio=read_audio(encoder_args.section("audio_encoding_args")),
        encoder=read_encoder(encoder_args),
        decoder=read_decoder(params, shapes),
        downsample_factor=args.section("downsample_args").get("downsample_factor", int),
    )
    params.ignore("quantization", "quantization_config")
    encoder_args.report_unread()
    params.report_unread()
    return config


def _has_params(values: Mapping[str, Any]) -> bool:
    return "multimodal" in values or "dim" in values


PARAMS = ConfigFormat("params.json", _has_params, _read_params)
"""The keys of ``params.json``, whatever the file is called."""

MISTRAL_REALTIME = Layout(
    name="Mistral",
    model_type=REALTIME,
    mark=re.compile(r"mm_streams_embeddings\."),
    names=NameMap(REALTIME_NAMES),
    config_formats=(PARAMS,),
    kernel_last=True,
    unused=re.compile(r"^output\.weight$"),  # the head is tied to the embedding
)
