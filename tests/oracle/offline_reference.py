"""Make the fixtures of ``tests/models/test_voxtral.py`` with torch and Transformers' own classes.

    python -m tests.oracle.offline_reference    # writes tests/fixtures/offline_*.npz

Needs torch, transformers >= 5.2, mistral-common[audio] and safetensors; the tests need none.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import VoxtralConfig, VoxtralForConditionalGeneration, WhisperFeatureExtractor

from tests.oracle import offline_native as native

CASES = {"a": (8, 30.7), "b": (2, 12.3)}
"""Name: seed, seconds of audio."""

N_STEPS = 24
CHUNK = 480000
HERE = Path(__file__).parents[1] / "fixtures"


def build(weights: dict[str, np.ndarray]) -> VoxtralForConditionalGeneration:
    """The reference model, float32; its position table is the one its class starts with."""
    values = native.config()
    config = VoxtralConfig(**{k: v for k, v in values.items() if k != "model_type"})
    model = VoxtralForConditionalGeneration(config).eval().float()
    table = model.model.audio_tower.embed_positions.weight
    inverse = torch.exp(
        -np.log(10000) / (table.shape[1] // 2 - 1) * torch.arange(table.shape[1] // 2)
    )
    angles = torch.arange(table.shape[0])[:, None] * inverse
    with torch.no_grad():
        table.copy_(torch.cat([angles.sin(), angles.cos()], dim=1))
    names = {"language_model.lm_head.weight": "lm_head.weight"}
    state = {
        names.get(name, "model." + name.replace("language_model.model.", "language_model.")): x
        for name, x in native.hf_state(weights).items()
    }
    report = model.load_state_dict(
        {name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in state.items()}, strict=False
    )
    missing = [name for name in report.missing_keys if "embed_positions" not in name]
    if missing or report.unexpected_keys:
        raise SystemExit(f"names do not fit: {missing} {report.unexpected_keys}")
    return model


def prompts(audio: np.ndarray) -> dict[str, np.ndarray]:
    """Ids of transcriptions and of a conversation, by ``mistral_common``."""
    from mistral_common.protocol.instruct.chunk import AudioChunk, TextChunk
    from mistral_common.protocol.instruct.messages import AssistantMessage, UserMessage
    from mistral_common.protocol.instruct.request import ChatCompletionRequest
    from mistral_common.protocol.transcription.request import TranscriptionRequest
    from mistral_common.tokens.tokenizers.audio import Audio
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tekken.json"
        path.write_text(json.dumps(_with_every_name(native.tekken())))
        tokenizer = MistralTokenizer.from_file(str(path))
    sound = Audio(audio, native.SAMPLE_RATE, "wav")
    chunk, data = AudioChunk.from_audio(sound), sound.to_base64("wav")
    chat = [
        UserMessage(content=[chunk, TextChunk(text="Hi"), TextChunk(text="you"), chunk]),
        AssistantMessage(content="Yes."),
        UserMessage(content="and"),
    ]
    encoded = {
        "prompt_en": tokenizer.encode_transcription(
            TranscriptionRequest(model="x", audio=data, language="en")
        ),
        "prompt_auto": tokenizer.encode_transcription(TranscriptionRequest(model="x", audio=data)),
        "prompt_chat": tokenizer.encode_chat_completion(ChatCompletionRequest(messages=chat)),
    }
    return {name: np.array(one.tokens, np.int32) for name, one in encoded.items()}


def _with_every_name(tekken: dict[str, Any]) -> dict[str, Any]:
    """Add the control tokens that ``mistral_common`` looks up, at ids that no prompt uses."""
    from mistral_common.tokens.tokenizers.base import SpecialTokens

    names = {entry["token_str"] for entry in tekken["special_tokens"]}
    absent = sorted({token.value for token in SpecialTokens} - names)
    for rank, name in enumerate(absent, start=200):
        tekken["special_tokens"][rank]["token_str"] = name
    return tekken


@torch.no_grad()
def run(model: Any, audio: np.ndarray, prompt: list[int]) -> dict[str, np.ndarray]:
    """Every intermediate of one transcription, and its first greedy ids."""
    extractor = WhisperFeatureExtractor(feature_size=128)
    mel = extractor(
        audio,
        sampling_rate=native.SAMPLE_RATE,
        padding=True,
        truncation=False,
        pad_to_multiple_of=CHUNK,
        return_tensors="pt",
    )["input_features"]
    chunks = mel.reshape(128, -1, 3000).transpose(0, 1)
    features = model.model.get_audio_features(chunks)
    out = model(input_ids=torch.tensor([prompt]), input_features=chunks, use_cache=True)
    logits, steps = out.logits[0], []
    ids = [int(logits[-1].argmax())]
    for _ in range(N_STEPS):
        out = model(
            input_ids=torch.tensor([[ids[-1]]]),
            past_key_values=out.past_key_values,
            use_cache=True,
        )
        steps.append(out.logits[0, -1])
        ids.append(int(steps[-1].argmax()))
    return {
        "mel": mel[0].T.numpy()[::197],
        "encoder": features.last_hidden_state.numpy()[:, ::75],
        "adapter": features.pooler_output.numpy()[::31],
        "prefill": logits[[0, 100, len(prompt) // 2, -2, -1]].numpy(),
        "steps": torch.stack(steps).numpy()[::6],
        "ids": np.array(ids, np.int32),
    }


def make(name: str) -> dict[str, np.ndarray]:
    """One fixture."""
    seed, seconds = CASES[name]
    audio = native.recording(seconds, seed)
    encoded = prompts(audio)
    return encoded | run(build(native.draw(seed)), audio, encoded["prompt_en"].tolist())


def main() -> None:
    """Write the fixtures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    for name in CASES:
        fixture = make(name)
        path = args.out / f"offline_{name}.npz"
        np.savez_compressed(path, **fixture)
        print(f"{path}: {path.stat().st_size / 1e3:.0f} kB; ids {fixture['ids'].tolist()}")


if __name__ == "__main__":
    main()
