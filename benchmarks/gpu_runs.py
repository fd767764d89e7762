"""Recordings through this program, timed: what the parts of ``gpu.py`` share."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mlx.core as mx
import numpy as np

from voxmlx.generation.batch import BatchDecoder
from voxmlx.generation.encode import BatchEncoder
from voxmlx.generation.prompt import right_padding
from voxmlx.generation.row import RowOptions, SpecialIds
from voxmlx.kernels import decode
from voxmlx.models.voxtral_realtime import VoxtralRealtime
from voxmlx.streaming.embedder import MelQueue
from voxmlx.streaming.files import file_positions

IDS = SpecialIds(bos=1, eos=-1, pad=32)
N_DELAY = 6

Report = dict[str, Any]


class Replay:
    """Stands in for ``count_right``: gives the recorded numbers, row by row in turn."""

    def __init__(self, record: Report, n_rows: int):
        accepted = record["accepted"]
        self._rows = [self._forever(accepted[i % len(accepted)]) for i in range(n_rows)]
        self._next = 0

    @staticmethod
    def _forever(counts: list[int]) -> Iterator[int]:
        while True:
            yield from counts

    def __call__(self, guesses: list[int], ids: list[int]) -> int:
        """The next recorded number of the next row, as far as there are guesses."""
        row = self._rows[self._next % len(self._rows)]
        self._next += 1
        return min(next(row), len(guesses))


def embed_clips(model: VoxtralRealtime, clips: list[np.ndarray], rows: int) -> list[mx.array]:
    """Audio embeddings of clips, some rows at a time; threads make the mel frames of the next."""

    def queue_of(clip: np.ndarray) -> MelQueue:
        queue = MelQueue(model.config)
        queue.feed(clip)
        padding = right_padding(len(clip), N_DELAY, model.config.audio.samples_per_token)
        queue.feed(np.zeros(padding + 200, np.float32))
        return queue

    embedded: list[mx.array] = []
    with ThreadPoolExecutor(8) as pool:
        for start in range(0, len(clips), rows):
            group = [queue_of(clip) for clip in clips[start : start + rows]]
            encoder = BatchEncoder(model, file_positions(rows))
            keys = [encoder.join() for _ in group]
            parts: dict[int, list[mx.array]] = {key: [] for key in keys}
            waiting = [pool.submit(queue.take, encoder.max_positions) for queue in group]
            while waiting:
                frames = [future.result() for future in waiting]
                more = any(queue.n_positions for queue in group)
                waiting = [
                    pool.submit(queue.take, encoder.max_positions) for queue in group if more
                ]
                mel = {key: x for key, x in zip(keys, frames, strict=True) if len(x)}
                for key, audio in encoder.encode(mel).items():
                    parts[key].append(audio)
                mx.eval([parts[key][-1] for key in mel])  # two under way would hold more
            embedded += [mx.concatenate(parts[key], axis=1) for key in keys]
            mx.eval(embedded)
    return embedded


def transcribe_rows(
    model: VoxtralRealtime, clips: list[np.ndarray], positions_per_pass: int | None, rows: int = 1
) -> Report:
    """Mel, encoder and decoder over clips as rows of one batch; ``rows`` are encoded together."""
    started = time.perf_counter()
    options = RowOptions(N_DELAY, positions_per_pass=positions_per_pass)
    decoder = BatchDecoder(model, IDS)
    embedded = embed_clips(model, clips, rows)
    keys = [decoder.join(options) for _ in clips]
    for key, audio in zip(keys, embedded, strict=True):
        decoder.add(key, audio)
    mx.eval(embedded)
    del embedded
    encoded = time.perf_counter()
    ids: list[int] = []
    while any(decoder.n_ready(key) for key in keys):
        ids += [token.id for tokens in decoder.step().values() for token in tokens]
    return {
        "encode_s": encoded - started,
        "decode_s": time.perf_counter() - encoded,
        "tokens": len(ids),
        "passes": decoder.n_passes,
        "ids": ids,
    }


def timed(function: Callable[[], Any], turns: int = 1) -> tuple[float, float, Any]:
    """Shortest time in seconds, peak memory in GB, weights included, and the last result."""
    best, result = float("inf"), None
    mx.clear_cache()
    mx.reset_peak_memory()
    for _ in range(turns):
        started = time.perf_counter()
        result = function()
        best = min(best, time.perf_counter() - started)
    return best, mx.get_peak_memory() / 1e9, result


def use_kernels(model: VoxtralRealtime, on: bool) -> None:
    """Turn this program's own kernels on or off; steps are traced anew."""
    os.environ["VOXMLX_KERNELS"] = "1" if on else "0"
    decode.on_cuda.cache_clear()
    model._step_program = None
