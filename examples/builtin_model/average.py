"""Step 3b: weighted average of exported weights that share a beginning.

    python average.py --weights A/export/hf C/export/hf BEFORE --shares 0.35 0.35 0.3 --out hf

All folders hold Transformers weights of one shape; configuration and tokenizer are the first one's.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", type=Path, nargs="+", required=True)
    parser.add_argument("--shares", type=float, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if len(args.weights) != len(args.shares):
        parser.error(f"{len(args.weights)} folders, {len(args.shares)} shares: give one for each")
    if abs(sum(args.shares) - 1) > 1e-6:
        parser.error(f"the shares must sum to 1, they sum to {sum(args.shares)}")
    parts = [load_file(folder / "model.safetensors") for folder in args.weights]
    out = {}
    for name in parts[0]:
        rows = zip(args.shares, parts, strict=True)
        total = sum(share * part[name].astype(np.float32) for share, part in rows)
        out[name] = np.asarray(total, np.float16)
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(out, args.out / "model.safetensors", metadata={"format": "pt"})
    for name in ("config.json", "tekken.json"):
        shutil.copy(args.weights[0] / name, args.out)


if __name__ == "__main__":
    main()
