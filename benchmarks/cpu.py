"""The small model on this CPU: this program and voxmlx 0.0.2 in turn, on the same audio.

    python benchmarks/cpu.py --old FOLDER_OF_VOXMLX_0_0_2 --model tiny RECORDING...

Times are those of the process on all cores, the shortest of the turns, so that other work on the
machine counts little. MLX's Linux wheels bring the reference BLAS; a faster one can be put before
it (``LD_PRELOAD=libopenblas.so.0``), which helps both programs.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np

from benchmarks.old_voxmlx import old_generate, old_model
from voxmlx import load
from voxmlx.audio.decode import read_audio
from voxmlx.checkpoints.hub import resolve
from voxmlx.checkpoints.load import load_model


def cpu_s(function: Callable[[], Any], turns: int) -> tuple[float, Any]:
    """Shortest processor time in seconds, and the last result."""
    best, result = float("inf"), None
    for _ in range(turns):
        started = time.process_time()
        result = function()
        best = min(best, time.process_time() - started)
    return best, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--old", required=True)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("recordings", nargs="+")
    args = parser.parse_args()
    pipeline = load(args.model, dtype="float32")
    # Weights of its own, in the layout of the file: ours are laid out for this CPU.
    old = old_model(args.old, load_model(resolve(args.model), mx.float32).model)
    window = pipeline.config.decoder.sliding_window
    total = np.zeros(3)
    for path in args.recordings:
        samples = read_audio(path)
        ours, result = cpu_s(lambda x=samples: pipeline.generate(x, sample_rate=16000), args.turns)
        theirs, ids = cpu_s(
            lambda x=samples: old_generate(old, x, window=window, eos=2), args.turns
        )
        total += (len(samples) / 16000, ours, theirs)
        line = {
            "recording": path.rsplit("/", 1)[-1],
            "audio_s": round(len(samples) / 16000, 2),
            "ours_s": round(ours, 3),
            "old_s": round(theirs, 3),
            "times_faster": round(theirs / ours, 2),
            "passes": result.timings.passes,
            "tokens": len(result.tokens),
            # Its encoder looks back without a limit, so ids differ once the window is full.
            "same_ids": float(np.mean([a == b for a, b in zip(result.tokens, ids, strict=False)])),
        }
        print(json.dumps(line), flush=True)
    audio, ours, theirs = total
    print(
        f"real-time factors {ours / audio:.3f} and {theirs / audio:.3f}: {theirs / ours:.2f} times"
    )


if __name__ == "__main__":
    main()
