"""voxmlx 0.0.2, the earlier program of this name, run on this program's weights.

Its package is loaded under another name, without its command line, so that both run in one process,
on the same arrays. It is used as published, but for the reading of a file: it is handed samples.
"""

from __future__ import annotations

import importlib
import re
import sys
import types
from pathlib import Path
from typing import Any

import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from voxmlx.config import ModelConfig
from voxmlx.models.voxtral_realtime import VoxtralRealtime

RENAMED = (
    (r"^decoder\.", "language_model."),
    (r"\.attention_norm\.", ".attn_norm."),
    (r"^adapter\.linear_1\.", "adapter.w_in."),
    (r"^adapter\.linear_2\.", "adapter.w_out."),
    (r"\.ada_norm\.linear_1\.", ".ada_norm.linear_in."),
    (r"\.ada_norm\.linear_2\.", ".ada_norm.linear_out."),
)


def load_package(folder: str | Path) -> types.ModuleType:
    """The package's modules under the name ``old_voxmlx_package``."""
    name = "old_voxmlx_package"
    if name not in sys.modules:
        for missing in ("soundfile", "huggingface_hub"):
            try:
                importlib.import_module(missing)
            except ImportError:
                stub = types.ModuleType(missing)
                stub.snapshot_download = stub.read = None  # type: ignore[attr-defined]
                sys.modules[missing] = stub
        package = types.ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    importlib.import_module(f"{name}.generate")
    importlib.import_module(f"{name}.model")
    return sys.modules[name]


def old_name(name: str) -> str:
    """The earlier program's name of one of our parameters."""
    for pattern, replacement in RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def old_config(config: ModelConfig) -> dict[str, Any]:
    """The parts of ``params.json`` that it reads."""
    encoder, decoder = config.encoder, config.decoder
    return {
        "dim": decoder.dim,
        "n_layers": decoder.n_layers,
        "head_dim": decoder.head_dim,
        "hidden_dim": decoder.hidden_dim,
        "n_heads": decoder.n_heads,
        "n_kv_heads": decoder.n_kv_heads,
        "rope_theta": decoder.rope_theta,
        "vocab_size": decoder.vocab_size,
        "ada_rms_norm_t_cond_dim": decoder.ada_dim,
        "multimodal": {
            "whisper_model_args": {
                "encoder_args": {
                    "audio_encoding_args": {"num_mel_bins": config.audio.n_mels},
                    **{
                        key: getattr(encoder, key)
                        for key in ("dim", "n_layers", "n_heads", "head_dim", "hidden_dim")
                    },
                    "rope_theta": encoder.rope_theta,
                    "sliding_window": encoder.sliding_window,
                },
                "downsample_args": {"downsample_factor": config.downsample_factor},
            }
        },
    }


def old_model(folder: str | Path, model: VoxtralRealtime) -> Any:
    """Its network, holding the very arrays of ours."""
    package = load_package(folder)
    old = package.model.VoxtralRealtime(old_config(model.config))
    modules = {old_name(f"{path}.")[:-1]: module for path, module in model.named_modules()}

    def packed(path: str, module: nn.Module) -> bool | dict[str, Any]:
        ours = modules.get(path)
        if ours is None or "scales" not in ours:
            return False
        return {"group_size": ours.group_size, "bits": ours.bits, "mode": ours.mode}

    nn.quantize(old, class_predicate=packed)
    weights = [(old_name(n), x) for n, x in tree_flatten(model.parameters())]
    old.load_weights(weights)
    return old


def old_generate(
    old: Any, samples: np.ndarray, n_delay: int = 6, window: int = 8192, eos: int = -1
) -> list[int]:
    """Its ids for 16 kHz samples."""
    generate = sys.modules["old_voxmlx_package.generate"]
    generate.load_audio = lambda _: samples  # type: ignore[attr-defined]
    prompt = [1] + [32] * (32 + n_delay)
    return generate.generate(old, "", prompt, n_delay, eos_token_id=eos, sliding_window=window)
