"""Record how many guesses hold, pass by pass, when a real model reads real speech.

    python benchmarks/record_acceptance.py MODEL OUT.json RECORDING...

``benchmarks/gpu.py`` replays the record on a network of the release's size with random weights,
whose own guesses never hold. The widths tried are those of a GPU, whatever runs this. A batch of
``--places`` rows is stood for by as many rows as there are recordings.
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
from voxmlx.generation import batch, row, speculative
from voxmlx.generation.batch import BatchDecoder
from voxmlx.generation.prompt import right_padding
from voxmlx.generation.row import RowOptions, SpecialIds
from voxmlx.streaming.embedder import MelQueue

GPU_OVERHEAD = 40.0


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


def record(pipeline: Any, clips: list[np.ndarray], n_places: int, n_delay: int) -> dict[str, Any]:
    """Decode the clips as rows of one batch and note every pass."""
    model, tokenizer = pipeline.model, pipeline.tokenizer
    counts: list[int] = []
    count_right, best_width = speculative.count_right, speculative.best_width

    def noting(guesses: list[int], ids: list[int]) -> int:
        counts.append(count_right(guesses, ids))
        return counts[-1]

    row.count_right = noting
    scale = n_places / len(clips)
    batch.best_width = lambda rows, sizes, n, _: best_width(rows, sizes, n, GPU_OVERHEAD / scale)
    decoder = BatchDecoder(model, SpecialIds(tokenizer.bos_id, -1, tokenizer.pad_id))
    rows = {decoder.join(RowOptions(n_delay)): clip for clip in clips}
    audio = {key: embed(model, clip, n_delay) for key, clip in rows.items()}
    accepted: dict[int, list[int]] = {key: [] for key in rows}
    ids: dict[int, list[int]] = {key: [] for key in rows}
    for key in rows:
        decoder.add(key, audio[key])
    while any(decoder.n_ready(key) for key in rows):
        counts.clear()
        for (key, tokens), n in zip(decoder.step().items(), counts, strict=True):
            accepted[key].append(n)
            ids[key] += [token.id for token in tokens]
    row.count_right, batch.best_width = count_right, best_width
    n_tokens = sum(map(len, ids.values()))
    n_passes = sum(map(len, accepted.values()))
    print(f"{n_tokens} tokens in {n_passes} passes of a row: {n_tokens / n_passes:.2f} a pass")
    for key in rows:
        print("  ", tokenizer.decode(ids[key])[:100])
    return {"places": n_places, "accepted": list(accepted.values())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("recordings", nargs="+")
    parser.add_argument("--seconds", type=float, default=60.0, help="audio of the single row")
    parser.add_argument("--places", type=int, default=32)
    args = parser.parse_args()
    pipeline = load(args.model, dtype="float32")
    clips = [read_audio(path) for path in args.recordings]
    single = np.concatenate(clips)[: int(args.seconds * 16000)]
    records = [record(pipeline, [single], 1, 6)]
    if args.places > 1:
        records.append(record(pipeline, clips[:8], args.places, 6))
    args.out.write_text(json.dumps(records))


if __name__ == "__main__":
    main()
