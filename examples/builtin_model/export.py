"""Write a trained model as a Mistral-native folder and as a Transformers folder.

    python export.py --weights HF_FOLDER --out DIR     # native files from a Transformers folder

native/: params.json, consolidated.safetensors (float16), tekken.json; hf/: what save_pretrained
writes, and tekken.json.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from common import EOS, Shape
from safetensors.torch import save_file
from torch import Tensor

MM = "mm_streams_embeddings.embedding_module."
ENC = MM + "whisper_encoder."
MLP = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}


def interleave(rows: Tensor, heads: int) -> Tensor:
    """Rotary rows of each head from half-split to interleaved order; weights and biases."""
    size = rows.shape[0] // heads
    return rows.view(heads, 2, size // 2, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)


def native_params(shape: Shape) -> dict[str, Any]:
    """The params.json of a shape."""
    return {
        "dim": shape.dec_dim,
        "n_layers": shape.dec_layers,
        "head_dim": shape.head_dim,
        "hidden_dim": shape.dec_hidden,
        "n_heads": shape.dec_heads,
        "n_kv_heads": shape.dec_kv_heads,
        "use_biases": False,
        "causal": True,
        "rope_theta": 1e6,
        "norm_eps": 1e-5,
        "vocab_size": shape.vocab,
        "model_parallel": 1,
        "tied_embeddings": True,
        "sliding_window": shape.dec_window,
        "model_max_length": 131072,
        "multimodal": {
            "whisper_model_args": {
                "encoder_args": {
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
                    "dim": shape.enc_dim,
                    "n_layers": shape.enc_layers,
                    "head_dim": shape.head_dim,
                    "hidden_dim": shape.enc_hidden,
                    "n_heads": shape.enc_heads,
                    "vocab_size": shape.vocab,
                    "n_kv_heads": shape.enc_heads,
                    "use_biases": True,
                    "use_cache": False,
                    "rope_theta": 1e6,
                    "causal": True,
                    "norm_eps": 1e-5,
                    "pos_embed": "rope",
                    "max_source_positions": None,
                    "ffn_type": "swiglu",
                    "norm_type": "rms_norm",
                    "sliding_window": shape.enc_window,
                },
                "downsample_args": {"downsample_factor": 4},
            }
        },
        "ada_rms_norm_t_cond": True,
        "ada_rms_norm_t_cond_dim": 32,
    }


def native_state(state: dict[str, Tensor], shape: Shape) -> dict[str, Tensor]:
    """Tensors of a Transformers state under their Mistral names, rotary rows interleaved."""
    src = {k.removeprefix("model."): v for k, v in state.items() if "lm_head" not in k}
    out = {
        MM + "tok_embeddings.weight": src["language_model.embed_tokens.weight"],
        "norm.weight": src["language_model.norm.weight"],
        ENC + "transformer.norm.weight": src["audio_tower.norm.weight"],
        MM + "audio_language_projection.0.weight": src["multi_modal_projector.linear_1.weight"],
        MM + "audio_language_projection.2.weight": src["multi_modal_projector.linear_2.weight"],
    }
    for i in (0, 1):
        for kind in ("weight", "bias"):
            out[f"{ENC}conv_layers.{i}.conv.{kind}"] = src[
                f"audio_tower.embedder.conv{i + 1}.{kind}"
            ]
    towers = [
        (
            "audio_tower.layers",
            ENC + "transformer.layers",
            shape.enc_layers,
            shape.enc_heads,
            shape.enc_heads,
            "self_attn_layer_norm",
            "final_layer_norm",
        ),
        (
            "language_model.layers",
            "layers",
            shape.dec_layers,
            shape.dec_heads,
            shape.dec_kv_heads,
            "input_layernorm",
            "post_attention_layernorm",
        ),
    ]
    for a, b, layers, heads, kv_heads, norm_1, norm_2 in towers:
        for i in range(layers):
            old, new = f"{a}.{i}.", f"{b}.{i}."
            for w, rotary in (("q", heads), ("k", kv_heads), ("v", 0), ("o", 0)):
                for kind in ("weight", "bias"):
                    key = f"{old}self_attn.{w}_proj.{kind}"
                    if key in src:
                        out[f"{new}attention.w{w}.{kind}"] = (
                            interleave(src[key], rotary) if rotary else src[key]
                        )
            out[new + "attention_norm.weight"] = src[old + norm_1 + ".weight"]
            out[new + "ffn_norm.weight"] = src[old + norm_2 + ".weight"]
            for native, name in MLP.items():
                out[f"{new}feed_forward.{native}.weight"] = src[f"{old}mlp.{name}.weight"]
                if f"{old}mlp.{name}.bias" in src:
                    out[f"{new}feed_forward.{native}.bias"] = src[f"{old}mlp.{name}.bias"]
            if a.startswith("language"):
                out[new + "ada_rms_norm_t_cond.0.weight"] = src[old + "ada_rms_norm.linear1.weight"]
                out[new + "ada_rms_norm_t_cond.2.weight"] = src[old + "ada_rms_norm.linear2.weight"]
    return {k: v.detach().cpu().to(torch.float16).clone().contiguous() for k, v in out.items()}


def write_native(state: dict[str, Tensor], shape: Shape, folder: Path, tekken: Path) -> None:
    """A Mistral-native folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.json").write_text(json.dumps(native_params(shape), indent=2))
    save_file(
        native_state(state, shape), folder / "consolidated.safetensors", metadata={"format": "pt"}
    )
    shutil.copy(tekken, folder / "tekken.json")


def export(model: Any, folder: Path, tekken: Path) -> None:
    """Both folders of a Trainee, weights rounded to float16 in both."""
    voxtral = model.voxtral
    with torch.no_grad():
        for p in voxtral.parameters():
            p.copy_(p.half().float())
    write_native(voxtral.state_dict(), model.shape, folder / "native", tekken)
    voxtral.generation_config.pad_token_id = 11
    voxtral.generation_config.eos_token_id = EOS
    copy.deepcopy(voxtral).half().save_pretrained(folder / "hf")
    shutil.copy(tekken, folder / "hf" / "tekken.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shape", default="{}", help="JSON of common.Shape fields")
    args = parser.parse_args()
    from transformers import VoxtralRealtimeForConditionalGeneration

    model = VoxtralRealtimeForConditionalGeneration.from_pretrained(
        args.weights, dtype=torch.float32
    )
    write_native(
        model.state_dict(), Shape(**json.loads(args.shape)), args.out, args.weights / "tekken.json"
    )


if __name__ == "__main__":
    main()
