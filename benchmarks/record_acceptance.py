"""Record how many guesses hold, pass by pass, when a real model reads real speech.

    python benchmarks/record_acceptance.py MODEL OUT.json RECORDING...

``benchmarks/gpu.py`` replays the record on a network of the release's size with random weights,
whose own guesses never hold. The widths tried are those of a GPU, whatever runs this; they depend
on what a pass costs beside its positions, so there is a record for each cost of ``--overheads``. A
batch of ``--places`` rows is stood for by as many rows as there are recordings, and counts half of
that cost, as :func:`voxmlx.generation.speculative.pass_overhead` does.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from voxmlx import load
from voxmlx.audio.decode import read_audio
from voxmlx.generation import batch, speculative
from voxmlx.generation.batch import BatchDecoder
from voxmlx.generation.prompt import right_padding
from voxmlx.generation.row import RowOptions, SpecialIds
from voxmlx.streaming.embedder import MelQueue


def gpu_sizes(n_places: int) -> tuple[int, ...]:
    """Widths of a pass on CUDA, as :func:`voxmlx.generation.batch.step_sizes` gives them there."""
    sizes = batch.TRACED_STEP_SIZES
    return tuple(n for n in sizes if n == 1 or n * n_places >= batch.CUDA_ROWS)


def embed(model: Any, samples: np.ndarray, n_delay: int) -> mx.array:
    """Audio embeddings of a padded recording, ``(1, n, D)``."""
    queue = MelQueue(model.config)
    per_token = model.config.audio.samples_per_token
    queue.feed(samples)
    queue.feed(np.zeros(right_padding(len(samples), n_delay, per_token) + 200, np.float32))
    state = model.encoder.make_state(100)
    rows = []
    while queue.n_positions:
        rows.append(model.embed_audio(mx.array(queue.take(25))[None], state))
        mx.eval(rows[-1])
    return mx.concatenate(rows, axis=1)


def record(
    pipeline: Any, clips: list[np.ndarray], n_places: int, n_delay: int, overhead: float
) -> dict[str, Any]:
    """Decode the clips as rows of one batch and note every pass."""
    model, tokenizer = pipeline.model, pipeline.tokenizer
    best_width = speculative.best_width
    scale = n_places / len(clips)
    sizes = gpu_sizes(n_places)
    batch.best_width = lambda rows, _, n, __: best_width(rows, sizes, n, overhead / scale)
    decoder = BatchDecoder(model, SpecialIds(tokenizer.bos_id, -1, tokenizer.pad_id))
    rows = {decoder.join(RowOptions(n_delay)): clip for clip in clips}
    audio = {key: embed(model, clip, n_delay) for key, clip in rows.items()}
    accepted: dict[int, list[int]] = {key: [] for key in rows}
    ids: dict[int, list[int]] = {key: [] for key in rows}
    for key in rows:
        decoder.add(key, audio[key])
    while any(decoder.n_ready(key) for key in rows):
        for key, tokens in decoder.step().items():
            accepted[key].append(len(tokens) - 1)
            ids[key] += [token.id for token in tokens]
    batch.best_width = best_width
    n_tokens = sum(map(len, ids.values()))
    n_passes = sum(map(len, accepted.values()))
    print(f"{n_tokens} tokens in {n_passes} passes of a row: {n_tokens / n_passes:.2f} a pass")
    return {"places": n_places, "accepted": list(accepted.values())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("recordings", nargs="+")
    parser.add_argument("--seconds", type=float, default=60.0, help="audio of the single row")
    parser.add_argument("--places", type=int, default=32)
    parser.add_argument("--overheads", type=int, nargs="+", default=[80, 40, 20])
    args = parser.parse_args()
    pipeline = load(args.model, dtype="float32")
    clips = [read_audio(path) for path in args.recordings]
    single = np.concatenate(clips)[: int(args.seconds * 16000)]
    records = {}
    for overhead in args.overheads:
        alone = record(pipeline, [single], 1, 6, overhead)
        batched = record(pipeline, clips[:8], args.places, 6, overhead / 2)
        records[str(overhead)] = [alone, batched]
    args.out.write_text(json.dumps(records))


if __name__ == "__main__":
    main()
