"""Write a checkpoint of Voxtral Mini 4B Realtime's shape with random weights, in Mistral's layout.

    python benchmarks/make_random_4b.py OUT [--encoder-layers 32] [--decoder-layers 26] [--seed 0]

For measuring size, memory and speed where the real weights are not at hand: every width is that of
the release, the text it writes means nothing. Takes 8.9 GB of disk at full size and about one
tensor of memory. Fewer layers give a small folder of real widths, which other readers require.
"""

from __future__ import annotations

import argparse
import base64
import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx

from voxmlx.checkpoints.load import build_model, parameter_shapes
from voxmlx.checkpoints.mistral import MISTRAL_REALTIME
from voxmlx.checkpoints.safetensors import LazyTensor, SafetensorsWriter, TensorSpec
from voxmlx.config import AudioConfig, DecoderConfig, EncoderConfig, ModelConfig

N_SPECIAL = 1000
CONTROL_NAMES = {0: "<unk>", 1: "<s>", 2: "</s>", 32: "[STREAMING_PAD]", 33: "[STREAMING_WORD]"}
PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def make_config(encoder_layers: int, decoder_layers: int) -> ModelConfig:
    """The release's numbers (its ``params.json``), with a choice of depth."""
    return ModelConfig(
        model_type="voxtral_realtime",
        audio=AudioConfig(),
        encoder=EncoderConfig(1280, encoder_layers, 32, 64, 5120, 750),
        decoder=DecoderConfig(3072, decoder_layers, 32, 8, 128, 9216, 131072, 8192, ada_dim=32),
    )


def make_params(config: ModelConfig) -> dict[str, Any]:
    """Content of ``params.json``."""
    encoder, decoder, audio = config.encoder, config.decoder, config.audio
    assert isinstance(encoder, EncoderConfig)
    return {
        "dim": decoder.dim,
        "n_layers": decoder.n_layers,
        "head_dim": decoder.head_dim,
        "hidden_dim": decoder.hidden_dim,
        "n_heads": decoder.n_heads,
        "n_kv_heads": decoder.n_kv_heads,
        "use_biases": False,
        "causal": True,
        "rope_theta": decoder.rope_theta,
        "norm_eps": decoder.norm_eps,
        "vocab_size": decoder.vocab_size,
        "model_parallel": 1,
        "tied_embeddings": True,
        "sliding_window": decoder.sliding_window,
        "model_max_length": 131072,
        "multimodal": {
            "whisper_model_args": {
                "encoder_args": {
                    "audio_encoding_args": {
                        "sampling_rate": audio.sample_rate,
                        "frame_rate": audio.frame_rate,
                        "num_mel_bins": audio.n_mels,
                        "hop_length": audio.hop_length,
                        "window_size": audio.window_size,
                        "chunk_length_s": None,
                        "global_log_mel_max": audio.global_log_mel_max,
                        "transcription_format": "streaming",
                    },
                    "dim": encoder.dim,
                    "n_layers": encoder.n_layers,
                    "head_dim": encoder.head_dim,
                    "hidden_dim": encoder.hidden_dim,
                    "n_heads": encoder.n_heads,
                    "n_kv_heads": encoder.n_kv_heads,
                    "vocab_size": decoder.vocab_size,
                    "use_biases": True,
                    "use_cache": False,
                    "rope_theta": encoder.rope_theta,
                    "causal": True,
                    "norm_eps": encoder.norm_eps,
                    "pos_embed": "rope",
                    "max_source_positions": None,
                    "ffn_type": "swiglu",
                    "norm_type": "rms_norm",
                    "sliding_window": encoder.sliding_window,
                },
                "downsample_args": {"downsample_factor": config.downsample_factor},
            }
        },
        "ada_rms_norm_t_cond": True,
        "ada_rms_norm_t_cond_dim": decoder.ada_dim,
    }


def make_tekken(n_vocab: int) -> dict[str, Any]:
    """Content of ``tekken.json``: the 256 bytes and made-up pieces up to ``n_vocab`` ids."""
    pieces = [bytes([value]) for value in range(256)]
    pieces += itertools.islice(_syllables(), n_vocab - N_SPECIAL - len(pieces))
    names = [CONTROL_NAMES.get(i, f"<SPECIAL_{i}>") for i in range(N_SPECIAL)]
    return {
        "config": {
            "pattern": PATTERN,
            "num_vocab_tokens": len(pieces),
            "default_vocab_size": n_vocab,
            "default_num_special_tokens": N_SPECIAL,
            "version": "v7",
        },
        "vocab": [
            {
                "rank": rank,
                "token_bytes": base64.b64encode(piece).decode(),
                "token_str": piece.decode() if rank > 255 or rank < 128 else None,
            }
            for rank, piece in enumerate(pieces)
        ],
        "special_tokens": [
            {"rank": i, "token_str": name, "is_control": True} for i, name in enumerate(names)
        ],
        "audio": {
            "sampling_rate": 16000,
            "frame_rate": 12.5,
            "audio_encoding_config": {"num_mel_bins": 128, "hop_length": 160, "window_size": 400},
            "transcription_format": "streaming",
            "transcription_delay_ms": 480,
            "streaming_look_ahead_ms": 2.5,
            "streaming_look_back_ms": 52.5,
            "streaming_n_left_pad_tokens": 32,
        },
    }


def _syllables() -> Iterator[bytes]:
    for length in itertools.count(1):
        for letters in itertools.product("etaoinshrdlu", repeat=length):
            word = "".join(letters)
            yield f" {word}".encode()
            if length > 1:
                yield word.encode()


def random_tensor(name: str, shape: tuple[int, ...]) -> mx.array:
    """Weights of a size that keeps activations near 1."""
    if name.endswith("norm.weight"):
        return mx.ones(shape, mx.bfloat16)
    fan_in = math.prod(shape[1:]) if len(shape) > 1 else 2500
    scale = 0.02 if "embed_tokens" in name else fan_in**-0.5
    return mx.random.normal(shape, dtype=mx.bfloat16, scale=scale)


def write(folder: Path, config: ModelConfig, seed: int) -> None:
    """Write the folder, tensor by tensor."""
    folder.mkdir(parents=True, exist_ok=True)
    mx.random.seed(seed)
    tensors = []
    for name, shape in parameter_shapes(build_model(config)).items():
        spec = TensorSpec(name, shape, mx.bfloat16)
        tensor = LazyTensor(spec, folder, lambda n=name, s=shape: random_tensor(n, s))
        tensors.append(MISTRAL_REALTIME.to_external(tensor, config))
    writer = SafetensorsWriter(folder / "consolidated.safetensors", [t.spec for t in tensors])
    for tensor in tensors:
        writer.write(tensor.read())
        mx.clear_cache()
    writer.close()
    (folder / "params.json").write_text(json.dumps(make_params(config), indent=2))
    (folder / "tekken.json").write_text(json.dumps(make_tekken(config.decoder.vocab_size)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--encoder-layers", type=int, default=32)
    parser.add_argument("--decoder-layers", type=int, default=26)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    write(args.folder, make_config(args.encoder_layers, args.decoder_layers), args.seed)


if __name__ == "__main__":
    main()
