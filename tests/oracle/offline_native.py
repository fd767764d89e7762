"""A tiny random offline checkpoint in Mistral's and Transformers' own formats, drawn with NumPy.

Reference and tests draw the same weights from the same seed, so that fixtures hold outputs only.
Names are written out here once more, apart from the package's own tables.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tests.oracle import drawing
from tests.oracle.native import speech_like
from tests.tiny import tiny_tekken_dict

SAMPLE_RATE = 16000
ENCODER = {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 256, "n_positions": 1500}
DECODER = {"dim": 128, "n_layers": 3, "n_heads": 8, "n_kv_heads": 2, "head_dim": 32}
HIDDEN_DIM, N_VOCAB = 192, 1280
PIECES = tuple(a + b for a in (" ", "e", "n", "th") for b in ("a", "d", "e", "n", "o", "s"))
EMBEDDING = "mm_whisper_embeddings."
TOWER = EMBEDDING + "whisper_encoder."
_MLP = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}


def params(n_positions: int = ENCODER["n_positions"]) -> dict[str, Any]:
    """Content of ``params.json``."""
    audio = {"sampling_rate": SAMPLE_RATE, "num_mel_bins": 128, "hop_length": 160}
    encoder = {
        "audio_encoding_args": {**audio, "window_size": 400},
        "dim": ENCODER["dim"],
        "n_layers": ENCODER["n_layers"],
        "head_dim": ENCODER["dim"] // ENCODER["n_heads"],
        "hidden_dim": ENCODER["hidden_dim"],
        "n_heads": ENCODER["n_heads"],
        "vocab_size": 51866,
        "max_source_positions": n_positions,
    }
    return {
        **DECODER,
        "hidden_dim": HIDDEN_DIM,
        "use_biases": False,
        "rope_theta": 1e8,
        "norm_eps": 1e-5,
        "vocab_size": N_VOCAB,
        "max_position_embeddings": 131072,
        "multimodal": {
            "whisper_model_args": {
                "encoder_args": encoder,
                "downsample_args": {"downsample_factor": 4},
            }
        },
    }


def config(n_positions: int = ENCODER["n_positions"]) -> dict[str, Any]:
    """Content of Transformers' ``config.json``."""
    return {
        "model_type": "voxtral",
        "architectures": ["VoxtralForConditionalGeneration"],
        "audio_token_id": 24,
        "projector_hidden_act": "gelu",
        "audio_config": {
            "model_type": "voxtral_encoder",
            "hidden_size": ENCODER["dim"],
            "intermediate_size": ENCODER["hidden_dim"],
            "num_hidden_layers": ENCODER["n_layers"],
            "num_attention_heads": ENCODER["n_heads"],
            "max_source_positions": n_positions,
            "num_mel_bins": 128,
            "activation_function": "gelu",
            "scale_embedding": False,
        },
        "text_config": {
            "model_type": "llama",
            "vocab_size": N_VOCAB,
            "hidden_size": DECODER["dim"],
            "head_dim": DECODER["head_dim"],
            "intermediate_size": HIDDEN_DIM,
            "num_hidden_layers": DECODER["n_layers"],
            "num_attention_heads": DECODER["n_heads"],
            "num_key_value_heads": DECODER["n_kv_heads"],
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 131072,
            "tie_word_embeddings": False,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e8},
        },
    }


def tekken() -> dict[str, Any]:
    """Content of ``tekken.json``."""
    content = tiny_tekken_dict()
    pieces = [bytes([value]) for value in range(256)] + [piece.encode() for piece in PIECES]
    content["vocab"] = [
        {"rank": rank, "token_bytes": base64.b64encode(piece).decode(), "token_str": None}
        for rank, piece in enumerate(pieces)
    ]
    content["config"] |= {"default_vocab_size": N_VOCAB, "num_vocab_tokens": len(pieces)}
    for rank in (17, 18, 32, 33, 34):
        names = {17: "[SYSTEM_PROMPT]", 18: "[/SYSTEM_PROMPT]", 34: "[TRANSCRIBE]"}
        content["special_tokens"][rank]["token_str"] = names.get(rank, f"<SPECIAL_{rank}>")
    content["audio"] = {
        "sampling_rate": SAMPLE_RATE,
        "frame_rate": 12.5,
        "chunk_length_s": 30.0,
        "audio_encoding_config": {"num_mel_bins": 128, "hop_length": 160, "window_size": 400},
    }
    return content


def shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor of Mistral's checkpoint."""
    e, d = ENCODER["dim"], DECODER["dim"]
    q_dim, kv_dim = DECODER["n_heads"] * 32, DECODER["n_kv_heads"] * 32
    out: dict[str, tuple[int, ...]] = {
        EMBEDDING + "tok_embeddings.weight": (N_VOCAB, d),
        EMBEDDING + "audio_language_projection.0.weight": (d, 4 * e),
        EMBEDDING + "audio_language_projection.2.weight": (d, d),
        TOWER + "conv_layers.0.weight": (e, 128, 3),
        TOWER + "conv_layers.0.bias": (e,),
        TOWER + "conv_layers.1.weight": (e, e, 3),
        TOWER + "conv_layers.1.bias": (e,),
        TOWER + "transformer.norm.weight": (e,),
        TOWER + "transformer.norm.bias": (e,),
        "norm.weight": (d,),
        "output.weight": (N_VOCAB, d),
    }
    for i in range(ENCODER["n_layers"]):
        layer = f"{TOWER}transformer.layers.{i}."
        for name in ("attention.wq", "attention.wk", "attention.wv", "attention.wo"):
            out[f"{layer}{name}.weight"] = (e, e)
        for name in ("attention.wq", "attention.wv", "attention.wo", "feed_forward.w2"):
            out[f"{layer}{name}.bias"] = (e,)
        for name in ("attention_norm", "ffn_norm"):
            out[f"{layer}{name}.weight"] = out[f"{layer}{name}.bias"] = (e,)
        out[f"{layer}feed_forward.w1.weight"] = (ENCODER["hidden_dim"], e)
        out[f"{layer}feed_forward.w1.bias"] = (ENCODER["hidden_dim"],)
        out[f"{layer}feed_forward.w2.weight"] = (e, ENCODER["hidden_dim"])
    for i in range(DECODER["n_layers"]):
        layer = f"layers.{i}."
        out[f"{layer}attention.wq.weight"] = (q_dim, d)
        out[f"{layer}attention.wk.weight"] = out[f"{layer}attention.wv.weight"] = (kv_dim, d)
        out[f"{layer}attention.wo.weight"] = (d, q_dim)
        for name in ("attention_norm", "ffn_norm"):
            out[f"{layer}{name}.weight"] = (d,)
        for name in ("w1", "w3"):
            out[f"{layer}feed_forward.{name}.weight"] = (HIDDEN_DIM, d)
        out[f"{layer}feed_forward.w2.weight"] = (d, HIDDEN_DIM)
    return out


def draw(seed: int) -> dict[str, np.ndarray]:
    """All tensors, float32; the same for the same seed on every machine."""
    return drawing.draw(shapes(), _scale, seed)


def _scale(name: str, x: np.ndarray, width: float) -> np.ndarray:
    """Scales keep every rule visible: attention is peaked, audio steers the text."""
    if name == "norm.weight":
        return 2 + 0.2 * x
    if "norm" in name and name.endswith("weight"):
        return 1 + 0.15 * x
    if x.ndim == 1:
        return 0.1 * x
    if "tok_embeddings" in name:
        return 0.05 * x
    if name == "output.weight":
        return 2 * x / width
    if "projection.2" in name:
        return 0.15 * x / width
    if name.startswith("layers.") and ("wo" in name or "w2" in name):
        return 0.3 * x / width
    if "wq" in name or "wk" in name:
        return 1.5 * x / width
    return x / width


def hf_rows(x: np.ndarray, n_heads: int) -> np.ndarray:
    """Rows of neighbouring rotary pairs -> first halves, then second halves, head by head."""
    return x.reshape(n_heads, -1, 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def hf_state(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Mistral's names and rows -> Transformers'; the fixed position table is not among them."""
    return dict(_hf_tensor(name, x) for name, x in weights.items())


def _hf_tensor(name: str, x: np.ndarray) -> tuple[str, np.ndarray]:
    fixed = {
        "norm.weight": "language_model.model.norm.weight",
        "output.weight": "language_model.lm_head.weight",
        EMBEDDING + "tok_embeddings.weight": "language_model.model.embed_tokens.weight",
        EMBEDDING + "audio_language_projection.0.weight": "multi_modal_projector.linear_1.weight",
        EMBEDDING + "audio_language_projection.2.weight": "multi_modal_projector.linear_2.weight",
    }
    if name in fixed:
        return fixed[name], x
    in_tower = name.startswith(TOWER)
    parts = name.removeprefix(TOWER).removeprefix("transformer.").split(".")
    kind = parts[-1]
    if parts[0] == "conv_layers":
        return f"audio_tower.conv{int(parts[1]) + 1}.{kind}", x
    if parts[0] == "norm":
        return f"audio_tower.layer_norm.{kind}", x
    head = f"{'audio_tower' if in_tower else 'language_model.model'}.layers.{parts[1]}."
    if parts[2] == "attention":
        letter = parts[3][1]
        if not in_tower and letter in "qk":
            x = hf_rows(x, DECODER["n_heads" if letter == "q" else "n_kv_heads"])
        return f"{head}self_attn.{'out' if in_tower and letter == 'o' else letter}_proj.{kind}", x
    if parts[2] == "feed_forward":
        inner = {"w1": "fc1", "w2": "fc2"}[parts[3]] if in_tower else f"mlp.{_MLP[parts[3]]}"
        return f"{head}{inner}.{kind}", x
    norms = (
        ("self_attn_layer_norm", "final_layer_norm")
        if in_tower
        else (
            "input_layernorm",
            "post_attention_layernorm",
        )
    )
    return f"{head}{norms[parts[2] == 'ffn_norm']}.{kind}", x


def write(
    folder: Path,
    weights: dict[str, np.ndarray],
    layout: str = "native",
    n_positions: int = ENCODER["n_positions"],
) -> Path:
    """Write the files of a release, ``native`` or ``hf``; returns the folder.

    Args:
        folder: Made if missing.
        weights: What :func:`draw` gave.
        layout: Whose files.
        n_positions: Rows of one chunk; 1500 (30 s) is the release's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if layout == "native":
        save_file(weights, str(folder / "consolidated.safetensors"))
        (folder / "params.json").write_text(json.dumps(params(n_positions)))
    else:
        state = {name: np.ascontiguousarray(x) for name, x in hf_state(weights).items()}
        save_file(state, str(folder / "model.safetensors"))
        (folder / "config.json").write_text(json.dumps(config(n_positions)))
    (folder / "tekken.json").write_text(json.dumps(tekken()))
    return folder


def recording(seconds: float, seed: int) -> np.ndarray:
    """A sound of any length, ``(n,)`` float32, in both of its chunks if it has two."""
    short = speech_like(3.137, seed)
    n = int(seconds * SAMPLE_RATE)
    return np.resize(short, n)
