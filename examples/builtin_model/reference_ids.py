"""Greedy ids by Transformers' own classes and `generate`, to compare another implementation with.

    python reference_ids.py --weights FOLDER --samples samples.npz --out ids.npz --delay 480

samples.npz holds float32 recordings at 16 kHz by name; ids.npz gets the ids after the prompt.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from common import BOS, LEFT_PAD, PAD, RIGHT_BUFFER, SAMPLES_PER_TOKEN
from transformers import VoxtralRealtimeFeatureExtractor, VoxtralRealtimeForConditionalGeneration


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--samples", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--delay", type=int, default=480, help="milliseconds")
    args = parser.parse_args()
    model = VoxtralRealtimeForConditionalGeneration.from_pretrained(
        args.weights, dtype=torch.float32
    ).eval()
    extractor = VoxtralRealtimeFeatureExtractor()
    delay = args.delay // 80
    prompt = [BOS] + [PAD] * (LEFT_PAD + delay)
    found = {}
    for name, wave in np.load(args.samples).items():
        right = -len(wave) % SAMPLES_PER_TOKEN + (delay + RIGHT_BUFFER) * SAMPLES_PER_TOKEN
        padded = np.pad(wave, (LEFT_PAD * SAMPLES_PER_TOKEN, right))
        mel = extractor(padded, sampling_rate=16_000, return_tensors="pt")["input_features"]
        ids = model.generate(
            input_ids=torch.tensor([prompt]),
            input_features=mel,
            num_delay_tokens=delay,
            do_sample=False,
        )
        found[name] = ids[0, len(prompt) :].numpy().astype(np.int32)
        print(f"{name}: {len(found[name])} ids", flush=True)
    np.savez(args.out, **found)


if __name__ == "__main__":
    main()
