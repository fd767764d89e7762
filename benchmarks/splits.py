"""Random splits of a recording against the whole: mel frames, encoder rows and ids.

    python benchmarks/splits.py --model tiny voxmlx/assets/examples/american_1.ogg --jobs 8
    python benchmarks/splits.py --model oracle

Pieces hold 1 sample to 10 s, evenly spread over the orders of magnitude; some are empty. Frames and
ids must be equal bit for bit. Rows may differ by the rounding of sums of another length; the
largest difference is printed beside the largest value. ``oracle`` is the random model of the tests
with short windows, on a sound of its own.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import mlx.core as mx
import numpy as np

from voxmlx.audio.decode import read_audio
from voxmlx.generation.prompt import right_padding
from voxmlx.pipeline import Pipeline, load
from voxmlx.streaming.backend import OwnBackend
from voxmlx.streaming.embedder import AudioEmbedder
from voxmlx.streaming.iterate import iterate
from voxmlx.streaming.options import StreamOptions
from voxmlx.streaming.session import StreamingSession

RATE = 16000
ROOT = Path(__file__).parents[1]


@dataclass
class Heard:
    """What one session computed: mel ``(8 n, n_mels)``, rows ``(n, D)``, ids."""

    mel: np.ndarray
    rows: np.ndarray
    ids: list[int]


class Spy(AudioEmbedder):
    """Keeps all frames and rows."""

    def __init__(self, *arguments: object):
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.mel: list[np.ndarray] = []
        self.rows: list[np.ndarray] = []
        take = self._queue.take

        def kept(max_positions: int) -> np.ndarray:
            self.mel.append(take(max_positions))
            return self.mel[-1]

        self._queue.take = kept  # type: ignore[method-assign]

    def encode(self, max_rows: int | None = None) -> mx.array:
        """The next rows."""
        rows = super().encode(max_rows)
        self.rows.append(np.array(rows.astype(mx.float32))[0])
        return rows


class SpyBackend(OwnBackend):
    """A session's own device, listened to."""

    def open_embedder(self, max_rows: int) -> Spy:
        """An embedder that keeps all."""
        self.spy = Spy(self._model, max_rows, self._kv)
        return self.spy


def hear(pipeline: Pipeline, parts: Iterable[np.ndarray], delay_ms: int) -> Heard:
    """Run a session over pieces of audio."""
    backend = SpyBackend(pipeline.model)
    options = StreamOptions(on_eos="stop", rut_guard=False)
    session = StreamingSession(
        pipeline.model,
        pipeline.tokenizer,
        transcription_delay_ms=delay_ms,
        options=options,
        backend=backend,
    )
    for _ in iterate(session, parts):
        pass
    mel, rows = np.concatenate(backend.spy.mel), np.concatenate(backend.spy.rows)
    return Heard(mel, rows, session.tokens)


def whole(pipeline: Pipeline, samples: np.ndarray, delay_ms: int) -> Heard:
    """The padded recording in one call of each part, and the ids of ``generate``."""
    n_right = right_padding(len(samples), delay_ms // 80, 1280)
    left = pipeline.config.n_left_pad_tokens * 1280
    queue = AudioEmbedder(pipeline.model, 1)._queue
    queue.feed(np.pad(samples, (0, n_right + 200)))
    mel = queue.take(10**9)
    assert len(mel) == (left + len(samples) + n_right) // 160
    rows = np.array(pipeline.model.embed_audio(mx.array(mel)[None]).astype(mx.float32))[0]
    result = pipeline.generate(samples, sample_rate=RATE, transcription_delay_ms=delay_ms)
    return Heard(mel, rows, result.tokens)


def check(model: str, samples: np.ndarray, delay_ms: int, seeds: range) -> tuple[int, float, float]:
    """Number of splits that differ, largest difference of rows, largest row value."""
    from tests.streaming.conftest import random_splits

    pipeline = open_pipeline(model)
    expected = whole(pipeline, samples, delay_ms)
    if len(set(expected.ids)) < 10:
        raise SystemExit(
            f"{model}: only {len(set(expected.ids))} different ids; choose other audio"
        )
    n_wrong, worst = 0, 0.0
    for seed in seeds:
        got = hear(pipeline, random_splits(samples, seed), delay_ms)
        n = len(got.mel)
        same = n <= len(expected.mel) and np.array_equal(got.mel, expected.mel[:n])
        same = same and n // 8 == len(got.rows) and got.ids == expected.ids
        same = same and (n == len(expected.mel) or got.ids[-1] == pipeline.tokenizer.eos_id)
        if not same:
            n_wrong += 1
            print(f"{model}, {delay_ms} ms, split {seed}: differs", flush=True)
        worst = max(worst, float(np.abs(got.rows - expected.rows[: len(got.rows)]).max()))
    return n_wrong, worst, float(np.abs(expected.rows).max())


def open_pipeline(model: str) -> Pipeline:
    """A model by name, or the random one of the tests."""
    if model != "oracle":
        return load(model)
    from tests.oracle import native

    spread = np.load(ROOT / "tests" / "fixtures" / "oracle_a.npz")["spread"]
    with tempfile.TemporaryDirectory() as folder:
        weights = native.draw(10) | {native.SPREAD: spread}
        return load(native.write(Path(folder), weights, 24, 20))


def sound(options: argparse.Namespace) -> np.ndarray:
    """The recording, or what the random model is tested with."""
    if options.recording is None:
        from tests.oracle import native

        return native.speech_like(options.seconds, 10)
    return read_audio(options.recording)[: round(options.seconds * RATE)]


def use_cpu() -> None:
    """Compute on the CPU in this process."""
    mx.set_default_device(mx.cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("recording", nargs="?")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--delay", type=int, nargs="+", default=[80, 480, 2400])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--cpu", action="store_true", help="even where there is a GPU")
    options = parser.parse_args()
    samples, started = sound(options), time.monotonic()
    parts = [range(i, options.splits, options.jobs) for i in range(options.jobs)]
    failed = False
    with get_context("spawn").Pool(options.jobs, use_cpu if options.cpu else None) as pool:
        for delay_ms in options.delay:
            jobs = [(options.model, samples, delay_ms, part) for part in parts]
            wrong, worst, largest = zip(*pool.starmap(check, jobs), strict=True)
            failed |= any(wrong)
            print(
                f"{options.model}, {len(samples) / RATE:.2f} s, {delay_ms} ms: {options.splits} "
                f"splits, {sum(wrong)} differ in mel or ids, rows by at most {max(worst):.1e} of "
                f"{max(largest):.2f} ({time.monotonic() - started:.0f} s)",
                flush=True,
            )
    sys.exit(failed)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
