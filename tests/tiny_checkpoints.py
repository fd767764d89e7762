"""Folders of one small random model in every published layout.

Names are written out here once more, apart from the package's own tables, and arrays are written by
numpy, so that a slip in the package shows.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from tests.tiny import tiny_tekken_dict

N_VOCAB = 1320
ENCODER = {"dim": 64, "layers": 2, "heads": 4, "head_dim": 32, "hidden": 128, "window": 24}
DECODER = {
    "dim": 128,
    "layers": 2,
    "heads": 8,
    "kv_heads": 2,
    "head_dim": 32,
    "hidden": 192,
    "window": 20,
}
ADA_DIM = 32

_NATIVE_EMBEDDINGS = "mm_streams_embeddings.embedding_module."
_NATIVE_WHISPER = _NATIVE_EMBEDDINGS + "whisper_encoder."
_MLP = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}


def internal_weights(seed: int = 0) -> dict[str, np.ndarray]:
    """Random float32 weights under the package's names, convolutions as (out, kernel, in)."""
    rng = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "encoder.conv1.weight": (ENCODER["dim"], 3, 128),
        "encoder.conv1.bias": (ENCODER["dim"],),
        "encoder.conv2.weight": (ENCODER["dim"], 3, ENCODER["dim"]),
        "encoder.conv2.bias": (ENCODER["dim"],),
        "encoder.norm.weight": (ENCODER["dim"],),
        "adapter.linear_1.weight": (DECODER["dim"], 4 * ENCODER["dim"]),
        "adapter.linear_2.weight": (DECODER["dim"], DECODER["dim"]),
        "decoder.embed_tokens.weight": (N_VOCAB, DECODER["dim"]),
        "decoder.norm.weight": (DECODER["dim"],),
    }
    for i in range(ENCODER["layers"]):
        shapes |= _layer_shapes(f"encoder.layers.{i}", ENCODER, ENCODER["heads"], bias=True)
    for i in range(DECODER["layers"]):
        prefix = f"decoder.layers.{i}"
        shapes |= _layer_shapes(prefix, DECODER, DECODER["kv_heads"], bias=False)
        shapes[f"{prefix}.ada_norm.linear_1.weight"] = (ADA_DIM, DECODER["dim"])
        shapes[f"{prefix}.ada_norm.linear_2.weight"] = (DECODER["dim"], ADA_DIM)
    return {
        name: (rng.standard_normal(shape) * shape[-1] ** -0.5).astype(np.float32)
        + (1.0 if "norm.weight" in name else 0.0)
        for name, shape in shapes.items()
    }


def _layer_shapes(
    prefix: str, sizes: dict[str, int], kv_heads: int, bias: bool
) -> dict[str, tuple[int, ...]]:
    dim, hidden = sizes["dim"], sizes["hidden"]
    q, kv = sizes["heads"] * sizes["head_dim"], kv_heads * sizes["head_dim"]
    shapes: dict[str, tuple[int, ...]] = {
        f"{prefix}.attention_norm.weight": (dim,),
        f"{prefix}.ffn_norm.weight": (dim,),
        f"{prefix}.attention.q_proj.weight": (q, dim),
        f"{prefix}.attention.k_proj.weight": (kv, dim),
        f"{prefix}.attention.v_proj.weight": (kv, dim),
        f"{prefix}.attention.o_proj.weight": (dim, q),
        f"{prefix}.mlp.gate_proj.weight": (hidden, dim),
        f"{prefix}.mlp.up_proj.weight": (hidden, dim),
        f"{prefix}.mlp.down_proj.weight": (dim, hidden),
    }
    if bias:
        shapes |= {
            f"{prefix}.attention.q_proj.bias": (q,),
            f"{prefix}.attention.v_proj.bias": (kv,),
            f"{prefix}.attention.o_proj.bias": (dim,),
            f"{prefix}.mlp.down_proj.bias": (dim,),
        }
    return shapes


def native_name(name: str) -> str:
    """Mistral's name of a weight."""
    fixed = {
        "encoder.conv1": _NATIVE_WHISPER + "conv_layers.0.conv",
        "encoder.conv2": _NATIVE_WHISPER + "conv_layers.1.conv",
        "encoder.norm": _NATIVE_WHISPER + "transformer.norm",
        "adapter.linear_1": _NATIVE_EMBEDDINGS + "audio_language_projection.0",
        "adapter.linear_2": _NATIVE_EMBEDDINGS + "audio_language_projection.2",
        "decoder.embed_tokens": _NATIVE_EMBEDDINGS + "tok_embeddings",
        "decoder.norm": "norm",
    }
    path, leaf = name.rsplit(".", 1)
    if path not in fixed:
        path = path.replace("encoder.layers", _NATIVE_WHISPER + "transformer.layers")
        path = path.replace("decoder.layers", "layers")
        for letter in "qkvo":
            path = path.replace(f"{letter}_proj", f"w{letter}") if "attention." in path else path
        for inside, outside in _MLP.items():
            path = path.replace(f"mlp.{inside}", f"feed_forward.{outside}")
        for number, index in ((1, 0), (2, 2)):
            path = path.replace(f"ada_norm.linear_{number}", f"ada_rms_norm_t_cond.{index}")
    return f"{fixed.get(path, path)}.{leaf}"


def hf_name(name: str) -> str:
    """Transformers' name of a weight."""
    fixed = {
        "encoder.conv1": "audio_tower.embedder.conv1",
        "encoder.conv2": "audio_tower.embedder.conv2",
        "encoder.norm": "audio_tower.norm",
        "adapter.linear_1": "multi_modal_projector.linear_1",
        "adapter.linear_2": "multi_modal_projector.linear_2",
        "decoder.embed_tokens": "language_model.model.embed_tokens",
        "decoder.norm": "language_model.model.norm",
    }
    path, leaf = name.rsplit(".", 1)
    if path.startswith("encoder.layers"):
        path = path.replace("encoder", "audio_tower")
        path = path.replace("attention_norm", "self_attn_layer_norm")
        path = path.replace("ffn_norm", "final_layer_norm")
    elif path.startswith("decoder.layers"):
        path = path.replace("decoder", "language_model.model")
        path = path.replace("attention_norm", "input_layernorm")
        path = path.replace("ffn_norm", "post_attention_layernorm")
        path = path.replace("ada_norm.linear_", "ada_rms_norm.linear")
    path = path.replace(".attention.", ".self_attn.")
    return f"{fixed.get(path, path)}.{leaf}"


def mlx_audio_name(name: str) -> str:
    """mlx-audio's name of a weight."""
    name = native_name(name)
    for outside, ours in (
        (_NATIVE_WHISPER + "conv_layers.0.", "encoder.conv_layers_0_conv."),
        (_NATIVE_WHISPER + "conv_layers.1.", "encoder.conv_layers_1_conv."),
        (_NATIVE_WHISPER + "transformer.layers", "encoder.transformer_layers"),
        (_NATIVE_WHISPER + "transformer.norm", "encoder.transformer_norm"),
        (_NATIVE_EMBEDDINGS + "audio_language_projection.", "encoder.audio_language_projection_"),
        (_NATIVE_EMBEDDINGS + "tok_embeddings", "decoder.tok_embeddings"),
        ("feed_forward.", "feed_forward_"),
        ("ada_rms_norm_t_cond.0", "ada_rms_norm_t_cond.ada_down"),
        ("ada_rms_norm_t_cond.2", "ada_rms_norm_t_cond.ada_up"),
    ):
        name = name.replace(outside, ours)
    return f"decoder.{name}" if name.startswith(("layers.", "norm.")) else name


def old_voxmlx_name(name: str) -> str:
    """The name of a weight in voxmlx 0.0.2."""
    for inside, outside in (
        ("attention_norm", "attn_norm"),
        ("adapter.linear_1", "adapter.w_in"),
        ("adapter.linear_2", "adapter.w_out"),
        ("ada_norm.linear_1", "ada_norm.linear_in"),
        ("ada_norm.linear_2", "ada_norm.linear_out"),
    ):
        name = name.replace(inside, outside)
    return name.replace("decoder.", "language_model.") if name.startswith("decoder.") else name


def params() -> dict[str, Any]:
    """Content of ``params.json``."""
    return {
        "dim": DECODER["dim"],
        "n_layers": DECODER["layers"],
        "head_dim": DECODER["head_dim"],
        "hidden_dim": DECODER["hidden"],
        "n_heads": DECODER["heads"],
        "n_kv_heads": DECODER["kv_heads"],
        "use_biases": False,
        "causal": True,
        "rope_theta": 1000000.0,
        "norm_eps": 1e-05,
        "vocab_size": N_VOCAB,
        "model_parallel": 1,
        "tied_embeddings": True,
        "sliding_window": DECODER["window"],
        "model_max_length": 131072,
        "multimodal": {
            "whisper_model_args": {
                "encoder_args": encoder_args(),
                "downsample_args": {"downsample_factor": 4},
            }
        },
        "ada_rms_norm_t_cond": True,
        "ada_rms_norm_t_cond_dim": ADA_DIM,
    }


def encoder_args() -> dict[str, Any]:
    """The encoder's part of ``params.json``."""
    return {
        "audio_encoding_args": {
            "sampling_rate": 16000,
            "frame_rate": 12.5,
            "num_mel_bins": 128,
            "hop_length": 160,
            "window_size": 400,
            "chunk_length_s": None,
            "global_log_mel_max": 1.5,
            "transcription_format": "streaming",
        },
        "dim": ENCODER["dim"],
        "n_layers": ENCODER["layers"],
        "head_dim": ENCODER["head_dim"],
        "hidden_dim": ENCODER["hidden"],
        "n_heads": ENCODER["heads"],
        "vocab_size": N_VOCAB,
        "n_kv_heads": ENCODER["heads"],
        "use_biases": True,
        "use_cache": False,
        "rope_theta": 1000000.0,
        "causal": True,
        "norm_eps": 1e-05,
        "pos_embed": "rope",
        "max_source_positions": None,
        "ffn_type": "swiglu",
        "norm_type": "rms_norm",
        "sliding_window": ENCODER["window"],
    }


def hf_config() -> dict[str, Any]:
    """Content of Transformers' ``config.json``."""
    rope = {"rope_type": "default", "rope_theta": 1000000.0}
    return {
        "architectures": ["VoxtralRealtimeForConditionalGeneration"],
        "model_type": "voxtral_realtime",
        "audio_length_per_tok": 8,
        "default_num_delay_tokens": 6,
        "downsample_factor": 4,
        "projector_hidden_act": "gelu",
        "dtype": "float32",
        "audio_config": {
            "model_type": "voxtral_realtime_encoder",
            "hidden_size": ENCODER["dim"],
            "intermediate_size": ENCODER["hidden"],
            "num_hidden_layers": ENCODER["layers"],
            "num_attention_heads": ENCODER["heads"],
            "head_dim": ENCODER["head_dim"],
            "num_mel_bins": 128,
            "rms_norm_eps": 1e-05,
            "sliding_window": ENCODER["window"],
            "activation_function": "gelu",
            "hidden_act": "silu",
            "rope_parameters": rope,
        },
        "text_config": {
            "model_type": "voxtral_realtime_text",
            "hidden_size": DECODER["dim"],
            "intermediate_size": DECODER["hidden"],
            "num_hidden_layers": DECODER["layers"],
            "num_attention_heads": DECODER["heads"],
            "num_key_value_heads": DECODER["kv_heads"],
            "head_dim": DECODER["head_dim"],
            "rms_norm_eps": 1e-05,
            "sliding_window": DECODER["window"],
            "vocab_size": N_VOCAB,
            "tie_word_embeddings": True,
            "rope_parameters": rope,
        },
    }


def mlx_audio_config() -> dict[str, Any]:
    """Content of mlx-audio's ``config.json``."""
    shared = params()
    keys = ("dim", "n_layers", "head_dim", "hidden_dim", "n_heads", "n_kv_heads", "vocab_size")
    more = ("norm_eps", "rope_theta", "sliding_window", "tied_embeddings")
    ada = ("ada_rms_norm_t_cond", "ada_rms_norm_t_cond_dim")
    return {
        "model_type": "voxtral_realtime",
        "encoder_args": {**encoder_args(), "downsample_factor": 4},
        "decoder": {key: shared[key] for key in (*keys, *more, *ada)},
    }


def to_half_rows(array: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head in the order 0, 2, 4, ..., 1, 3, 5, ..., as Transformers keeps them."""
    size = len(array) // heads
    order = [h * size + i for h in range(heads) for i in (*range(0, size, 2), *range(1, size, 2))]
    return array[order]


def layout_weights(layout: str, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights as the layout ``native``, ``hf``, ``mlx_audio`` or ``old_voxmlx`` has them."""
    namer = {
        "native": native_name,
        "hf": hf_name,
        "mlx_audio": mlx_audio_name,
        "old_voxmlx": old_voxmlx_name,
    }[layout]
    result = {}
    for name, array in weights.items():
        if array.ndim == 3 and layout in ("native", "hf"):
            array = array.swapaxes(1, 2)
        if layout == "hf" and (".q_proj." in name or ".k_proj." in name):
            sizes = ENCODER if name.startswith("encoder") else DECODER
            array = to_half_rows(array, len(array) // sizes["head_dim"])
        result[namer(name)] = np.ascontiguousarray(array)
    return result


CONFIGS = {
    "native": params,
    "hf": hf_config,
    "mlx_audio": mlx_audio_config,
    "old_voxmlx": params,
}
LAYOUTS = tuple(CONFIGS)


def write_folder(
    folder: Path,
    layout: str,
    weights: dict[str, np.ndarray] | None = None,
    dtype: str = "F32",
    config: dict[str, Any] | None = None,
) -> Path:
    """Write a whole checkpoint folder in a layout; float weights only."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = internal_weights() if weights is None else weights
    native = layout == "native"
    write_safetensors(
        folder / ("consolidated.safetensors" if native else "model.safetensors"),
        layout_weights(layout, weights),
        dtype,
    )
    config = CONFIGS[layout]() if config is None else config
    write_json(folder / ("params.json" if native else "config.json"), config)
    write_tekken(folder)
    return folder


def write_tekken(folder: Path) -> None:
    write_json(folder / "tekken.json", tiny_tekken_dict())


def write_json(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values))


def write_safetensors(path: Path, arrays: dict[str, Any], dtype: str = "F32") -> None:
    """Write numpy arrays, floats as ``dtype`` (F32, F16 or BF16), by a writer of its own."""
    header, blobs, position = {}, [], 0
    for name, array in arrays.items():
        kind, blob = encode(np.asarray(array), dtype)
        header[name] = {
            "dtype": kind,
            "shape": list(array.shape),
            "data_offsets": [position, position + len(blob)],
        }
        blobs.append(blob)
        position += len(blob)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def encode(array: np.ndarray, dtype: str) -> tuple[str, bytes]:
    """Type name and bytes of an array; ``dtype`` applies to floats."""
    if array.dtype == np.uint32:
        return "U32", array.tobytes()
    if array.dtype == np.uint8:
        return "U8", array.tobytes()
    if dtype == "F16":
        return "F16", array.astype(np.float16).tobytes()
    if dtype == "BF16":
        return "BF16", np.asarray(mx.array(array).astype(mx.bfloat16).view(mx.uint16)).tobytes()
    return "F32", array.astype(np.float32).tobytes()


def quantized(
    arrays: dict[str, np.ndarray], paths: set[str], bits: int, group_size: int, mode: str = "affine"
) -> dict[str, np.ndarray]:
    """The same tensors with the ``weight`` of each module in ``paths`` packed by MLX."""
    result = {}
    for name, array in arrays.items():
        path, leaf = name.rsplit(".", 1)
        if leaf != "weight" or path not in paths:
            result[name] = array
            continue
        packed = mx.quantize(mx.array(array), group_size=group_size, bits=bits, mode=mode)
        for part, value in zip(("weight", "scales", "biases"), packed, strict=False):
            result[f"{path}.{part}"] = np.asarray(value)
    return result
