"""Step 3a: a larger model that computes what a smaller one computes, to train on from there.

    python grow.py --weights HF_FOLDER --out hf

Layers of the decoder are added between the old ones and its MLPs are widened to common.Shape. What
is new adds nothing at first: its last matrices are zeros, so the outputs are those of before.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from common import Shape
from model import Trainee
from transformers import VoxtralRealtimeForConditionalGeneration


def places(old: int, new: int) -> list[int]:
    """Where the old layers go among the new ones: the first first, the last last."""
    return [round(i * (new - 1) / max(1, old - 1)) for i in range(old)]


@torch.no_grad()
def grow(source: VoxtralRealtimeForConditionalGeneration, shape: Shape) -> Trainee:
    """A model of `shape`, which differs from that of `source` by its decoder's layers alone."""
    model = Trainee(shape)
    old, new = source.model.language_model.layers, model.voxtral.model.language_model.layers
    state = model.voxtral.state_dict()
    for name, value in state.items():
        if "language_model.layers." in name and ("o_proj" in name or "down_proj" in name):
            value.zero_()
    at = places(len(old), len(new))
    for name, value in source.state_dict().items():
        head, layers, rest = name.partition("language_model.layers.")
        if layers:
            number, _, rest = rest.partition(".")
            name = f"{head}{layers}{at[int(number)]}.{rest}"
        state[name][tuple(slice(n) for n in value.shape)] = value
    model.voxtral.load_state_dict(state)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    source = VoxtralRealtimeForConditionalGeneration.from_pretrained(
        args.weights, dtype=torch.float32
    )
    model = grow(source, Shape())
    model.voxtral.half().save_pretrained(args.out)
    shutil.copy(args.weights / "tekken.json", args.out)
    print(f"{sum(p.numel() for p in model.voxtral.parameters()) / 1e6:.3f} M parameters")


if __name__ == "__main__":
    main()
