"""Make the fixtures of ``tests/models/test_parity.py`` with torch and Transformers' own classes.

    python -m tests.oracle.reference            # writes tests/fixtures/oracle_*.npz

Needs torch, transformers >= 5.2 and safetensors; the tests themselves need none of them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    VoxtralRealtimeConfig,
    VoxtralRealtimeFeatureExtractor,
    VoxtralRealtimeForConditionalGeneration,
)

from tests.oracle import native

CASES = {
    # name: seed, encoder window, decoder window, seconds of audio
    "a": (10, 24, 20, 3.137),
    "b": (3, 50, 64, 2.5),
    "eos": (24, 24, 20, 3.137),
}
DELAYS_MS = (480, 80, 2400)
HERE = Path(__file__).parents[1] / "fixtures"


def hf_rows(x: np.ndarray, n_heads: int) -> np.ndarray:
    """Rows of neighbouring rotary pairs -> first halves, then second halves, head by head."""
    return x.reshape(n_heads, -1, 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def hf_state(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Mistral's names and rows -> those of the Transformers classes."""
    mlp = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
    out: dict[str, np.ndarray] = {}
    for name, x in weights.items():
        in_tower = name.startswith(native.TOWER)
        parts = name.removeprefix(native.TOWER).removeprefix(native.EMBEDDING).split(".")
        kind = parts[-1]
        if parts[0] == "tok_embeddings":
            out["model.language_model.embed_tokens.weight"] = x
        elif parts[0] == "audio_language_projection":
            number = {"0": 1, "2": 2}[parts[1]]
            out[f"model.multi_modal_projector.linear_{number}.weight"] = x
        elif parts[0] == "conv_layers":
            out[f"model.audio_tower.embedder.conv{int(parts[1]) + 1}.{kind}"] = x
        elif parts[-2] == "norm":
            out[f"model.{'audio_tower' if in_tower else 'language_model'}.norm.weight"] = x
        else:
            parts = parts[1:] if in_tower else parts
            head = f"model.{'audio_tower' if in_tower else 'language_model'}.layers.{parts[1]}."
            if parts[2] == "attention":
                letter = parts[3][1]
                sizes = native.ENCODER if in_tower else native.DECODER
                if letter == "q":
                    x = hf_rows(x, sizes["n_heads"])
                if letter == "k":
                    x = hf_rows(x, sizes["n_heads"] if in_tower else sizes["n_kv_heads"])
                out[f"{head}self_attn.{letter}_proj.{kind}"] = x
            elif parts[2] == "feed_forward":
                out[f"{head}mlp.{mlp[parts[3]]}.{kind}"] = x
            elif parts[2] == "ada_rms_norm_t_cond":
                number = {"0": 1, "2": 2}[parts[3]]
                out[f"{head}ada_rms_norm.linear{number}.weight"] = x
            elif parts[2] == "attention_norm":
                norm = "self_attn_layer_norm" if in_tower else "input_layernorm"
                out[f"{head}{norm}.weight"] = x
            else:
                norm = "final_layer_norm" if in_tower else "post_attention_layernorm"
                out[f"{head}{norm}.weight"] = x
    return out


def build(
    weights: dict[str, np.ndarray], encoder_window: int, decoder_window: int
) -> VoxtralRealtimeForConditionalGeneration:
    """The reference model, float32."""
    e, d = native.ENCODER, native.DECODER
    vocab_size = weights[native.EMBEDDING + "tok_embeddings.weight"].shape[0]
    rope = {"rope_type": "default", "rope_theta": 1e6}
    config = VoxtralRealtimeConfig(
        audio_config={
            "model_type": "voxtral_realtime_encoder",
            "hidden_size": e["dim"],
            "intermediate_size": e["hidden_dim"],
            "num_hidden_layers": e["n_layers"],
            "num_attention_heads": e["n_heads"],
            "head_dim": e["head_dim"],
            "num_mel_bins": 128,
            "rms_norm_eps": 1e-5,
            "sliding_window": encoder_window,
            "vocab_size": vocab_size,
            "rope_parameters": rope,
        },
        text_config={
            "model_type": "voxtral_realtime_text",
            "vocab_size": vocab_size,
            "hidden_size": d["dim"],
            "intermediate_size": native.HIDDEN_DIM,
            "num_hidden_layers": d["n_layers"],
            "num_attention_heads": d["n_heads"],
            "num_key_value_heads": d["n_kv_heads"],
            "head_dim": d["head_dim"],
            "rms_norm_eps": 1e-5,
            "sliding_window": decoder_window,
            "max_position_embeddings": 131072,
            "tie_word_embeddings": True,
            "rope_parameters": rope,
        },
        downsample_factor=4,
        audio_length_per_tok=8,
        default_num_delay_tokens=6,
        tie_word_embeddings=True,
    )
    model = VoxtralRealtimeForConditionalGeneration(config).eval().float()
    state = {name: torch.from_numpy(x) for name, x in hf_state(weights).items()}
    report = model.load_state_dict(state, strict=False)
    missing = [name for name in report.missing_keys if not name.startswith("lm_head")]
    if missing or report.unexpected_keys:
        raise SystemExit(f"names do not fit: {missing} {report.unexpected_keys}")
    model.tie_weights()
    model.generation_config.eos_token_id = 2
    model.generation_config.pad_token_id = 11
    return model


def pad(audio: np.ndarray, n_delay: int) -> np.ndarray:
    """Offline padding of ``mistral_common``."""
    return np.pad(audio, (32 * 1280, -len(audio) % 1280 + (n_delay + 11) * 1280))


@torch.no_grad()
def spread_adapter(model: Any, extractor: Any, audio: np.ndarray) -> np.ndarray:
    """Make the embeddings vary with the audio, so that greedy ids do; returns the new matrix."""
    mel = extractor(pad(audio, 6), sampling_rate=16000, return_tensors="pt")["input_features"]
    frames = model.model.audio_tower(mel).last_hidden_state
    projector = model.model.multi_modal_projector
    hidden = projector.act(projector.linear_1(frames.reshape(-1, 4 * native.ENCODER["dim"])))
    mean = hidden.mean(0) / hidden.mean(0).norm()
    weight = projector.linear_2.weight
    weight -= torch.outer(weight @ mean, mean)
    weight *= 0.04 / (hidden @ weight.T).std()
    return weight.numpy().copy()


@torch.no_grad()
def run(model: Any, extractor: Any, audio: np.ndarray, delay_ms: int) -> dict[str, np.ndarray]:
    """Every intermediate of one offline transcription, decoded greedily to the end of the audio."""
    n_delay = delay_ms // 80
    mel = extractor(pad(audio, n_delay), sampling_rate=16000, return_tensors="pt")["input_features"]
    core = model.model
    features = core.get_audio_features(input_features=mel, use_cache=False)
    adapter = features.pooler_output
    prompt = [1] + [32] * (32 + n_delay)
    t_cond = core.time_embedding(torch.full((1,), float(n_delay)))[None]
    embed, cache = model.get_input_embeddings(), None
    tokens, rows, logits = list(prompt), adapter[:, : len(prompt)], []
    for position in range(len(prompt), adapter.shape[1] + 1):
        out = core.language_model(
            inputs_embeds=embed(torch.tensor([tokens])) + rows,
            use_cache=True,
            past_key_values=cache,
            t_cond=t_cond,
        )
        cache = out.past_key_values
        logits.append(model.lm_head(out.last_hidden_state)[0, -1])
        tokens = [int(logits[-1].argmax())]
        rows = adapter[:, position : position + 1]
    generated = model.generate(
        input_ids=torch.tensor([prompt]), input_features=mel, num_delay_tokens=n_delay,
        do_sample=False,
    )[0]  # fmt: skip
    return {
        "mel": mel[0].T.numpy(),
        "encoder": features.last_hidden_state[0].numpy(),
        "adapter": adapter[0].numpy(),
        "logits": torch.stack(logits).numpy(),
        "ids": torch.stack(logits).argmax(-1).numpy(),
        "generated": generated[len(prompt) :].numpy(),
    }


def make(name: str) -> dict[str, np.ndarray]:
    """One fixture. Large arrays keep every third row; the logits keep every fifth."""
    seed, encoder_window, decoder_window, seconds = CASES[name]
    weights = native.draw(seed)
    audio = native.speech_like(seconds, seed)
    model = build(weights, encoder_window, decoder_window)
    extractor = VoxtralRealtimeFeatureExtractor()
    fixture = {"spread": spread_adapter(model, extractor, audio)}
    for delay_ms in DELAYS_MS:
        out = run(model, extractor, audio, delay_ms)
        if delay_ms == DELAYS_MS[0]:
            fixture["mel"] = out["mel"][::9]
            fixture["encoder"] = out["encoder"][::3]
            fixture["adapter"] = out["adapter"][::3]
        fixture[f"logits_{delay_ms}"] = out["logits"][::7]
        fixture[f"ids_{delay_ms}"] = out["ids"].astype(np.int32)
        fixture[f"generated_{delay_ms}"] = out["generated"].astype(np.int32)
    return fixture


def main() -> None:
    """Write the fixtures named on the command line, all by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(CASES))
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    for name in args.names:
        fixture = make(name)
        path = args.out / f"oracle_{name}.npz"
        np.savez_compressed(path, **fixture)
        ids = {ms: fixture[f"ids_{ms}"].tolist() for ms in DELAYS_MS}
        distinct = {ms: len(set(i)) for ms, i in ids.items()}
        print(f"{path}: {path.stat().st_size / 1e3:.0f} kB; distinct ids {distinct}; ", end="")
        print(f"EOS at { ({ms: i.index(2) for ms, i in ids.items() if 2 in i}) }")


if __name__ == "__main__":
    main()
