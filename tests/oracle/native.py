"""A tiny random realtime checkpoint in Mistral's own format, drawn with NumPy alone.

Reference and tests draw the same weights from the same seed, so that fixtures hold outputs only.
The scales keep every rule visible: both windows are far shorter than the clip, the residual streams
are small enough for the norms' epsilon, attention is peaked, and the tied head spreads its scores.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tests.oracle import drawing
from tests.tiny import tiny_tekken_dict

SAMPLE_RATE = 16000
ENCODER = {"dim": 64, "n_layers": 3, "n_heads": 4, "head_dim": 32, "hidden_dim": 128}
DECODER = {"dim": 128, "n_layers": 3, "n_heads": 8, "n_kv_heads": 2, "head_dim": 32}
HIDDEN_DIM, ADA_DIM, N_VOCAB = 192, 32, 1320
EMBEDDING = "mm_streams_embeddings.embedding_module."
TOWER = EMBEDDING + "whisper_encoder."
SPREAD = EMBEDDING + "audio_language_projection.2.weight"
"""Set by the reference: it takes the constant part out of the audio embeddings."""


def params(encoder_window: int, decoder_window: int) -> dict[str, Any]:
    """Content of ``params.json``."""
    common = {"norm_eps": 1e-5, "rope_theta": 1e6, "vocab_size": N_VOCAB, "causal": True}
    audio = {
        "sampling_rate": SAMPLE_RATE,
        "frame_rate": 12.5,
        "num_mel_bins": 128,
        "hop_length": 160,
        "window_size": 400,
        "chunk_length_s": None,
        "global_log_mel_max": 1.5,
        "transcription_format": "streaming",
    }
    encoder = {
        **common,
        **ENCODER,
        "audio_encoding_args": audio,
        "n_kv_heads": ENCODER["n_heads"],
        "use_biases": True,
        "use_cache": False,
        "pos_embed": "rope",
        "max_source_positions": None,
        "ffn_type": "swiglu",
        "norm_type": "rms_norm",
        "sliding_window": encoder_window,
    }
    return {
        **common,
        **DECODER,
        "hidden_dim": HIDDEN_DIM,
        "use_biases": False,
        "model_parallel": 1,
        "tied_embeddings": True,
        "sliding_window": decoder_window,
        "model_max_length": 131072,
        "multimodal": {
            "whisper_model_args": {
                "encoder_args": encoder,
                "downsample_args": {"downsample_factor": 4},
            }
        },
        "ada_rms_norm_t_cond": True,
        "ada_rms_norm_t_cond_dim": ADA_DIM,
    }


def shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor of the checkpoint."""
    e, d = ENCODER["dim"], DECODER["dim"]
    heads = ENCODER["n_heads"] * ENCODER["head_dim"]
    q_dim, kv_dim = DECODER["n_heads"] * 32, DECODER["n_kv_heads"] * 32
    out: dict[str, tuple[int, ...]] = {
        EMBEDDING + "tok_embeddings.weight": (N_VOCAB, d),
        EMBEDDING + "audio_language_projection.0.weight": (d, 4 * e),
        SPREAD: (d, d),
        TOWER + "conv_layers.0.conv.weight": (e, 128, 3),
        TOWER + "conv_layers.0.conv.bias": (e,),
        TOWER + "conv_layers.1.conv.weight": (e, e, 3),
        TOWER + "conv_layers.1.conv.bias": (e,),
        TOWER + "transformer.norm.weight": (e,),
        "norm.weight": (d,),
    }
    for i in range(ENCODER["n_layers"]):
        layer = f"{TOWER}transformer.layers.{i}."
        for name in ("wq", "wk", "wv"):
            out[f"{layer}attention.{name}.weight"] = (heads, e)
        out[f"{layer}attention.wo.weight"] = (e, heads)
        out[f"{layer}attention.wq.bias"] = out[f"{layer}attention.wv.bias"] = (heads,)
        for name in ("attention.wo.bias", "feed_forward.w2.bias"):
            out[layer + name] = (e,)
        for name in ("attention_norm", "ffn_norm"):
            out[f"{layer}{name}.weight"] = (e,)
        for name in ("w1", "w3"):
            out[f"{layer}feed_forward.{name}.weight"] = (ENCODER["hidden_dim"], e)
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
        out[f"{layer}ada_rms_norm_t_cond.0.weight"] = (ADA_DIM, d)
        out[f"{layer}ada_rms_norm_t_cond.2.weight"] = (d, ADA_DIM)
    return out


def draw(seed: int) -> dict[str, np.ndarray]:
    """All tensors, float32; the same for the same seed on every machine."""
    return drawing.draw(shapes(), _scale, seed)


def _scale(name: str, x: np.ndarray, width: float) -> np.ndarray:
    in_decoder = name.startswith("layers.")
    if name == "norm.weight":
        return 45 + 8 * x
    if name.endswith("norm.weight"):
        return 1 + 0.15 * x
    if name.endswith("tok_embeddings.weight"):
        return 0.008 * x
    if "conv_layers.1" in name:
        return 0.03 * x if x.ndim == 1 else 0.12 * x / width
    if x.ndim == 1:
        return (0.02 if "wo" in name or "w2" in name else 0.2) * x
    if "ada_rms_norm" in name:
        return (1.6 if ".0." in name else 0.9) * x / width
    if "wq" in name or "wk" in name:
        return 1.5 * x / width
    if "wo" in name or "w2" in name:
        return (0.06 if in_decoder else 0.2) * x / width
    return x / width


def write(
    folder: Path, weights: dict[str, np.ndarray], encoder_window: int, decoder_window: int
) -> Path:
    """Write the three files of the release; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, str(folder / "consolidated.safetensors"))
    (folder / "params.json").write_text(json.dumps(params(encoder_window, decoder_window)))
    (folder / "tekken.json").write_text(json.dumps(tiny_tekken_dict()))
    return folder


def speech_like(seconds: float, seed: int) -> np.ndarray:
    """Voiced syllables with pauses, ``(n,)`` float32; every sample a multiple of ``2**-15``."""
    rng = np.random.default_rng(seed)
    n = int(seconds * SAMPLE_RATE)
    t = np.arange(n) / SAMPLE_RATE
    x = 0.01 * rng.standard_normal(n)
    start = 0.15
    while start < seconds - 0.2:
        length = rng.uniform(0.15, 0.6)
        envelope = np.clip(np.minimum((t - start) / 0.04, (start + length - t) / 0.07), 0, 1)
        pitch = rng.uniform(90, 230) * (1 + 0.1 * np.sin(2 * np.pi * rng.uniform(2, 5) * t))
        phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
        for k in range(1, 16):
            x += envelope * 0.25 / k * np.sin(k * phase + rng.uniform(0, 6.28))
        start += length + rng.choice([0.03, 0.05, 0.4])
    return (np.round(x / np.abs(x).max() * 0.45 * 2**15) / 2**15).astype(np.float32)
