"""A tiny random model that writes much text, and what it says of a recording by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.tiny import PIECES
from tests.tiny_checkpoints import internal_weights, write_folder
from voxmlx.pipeline import Pipeline
from voxmlx.types import Transcription

_N_PIECES = len(PIECES)
_FIRST_PIECE = 1256
_PAD, _WORD = 32, 33


def write_model(folder: Path) -> Path:
    """Write the model; it answers to the sound with pieces of words, pads and marks."""
    weights = internal_weights()
    embeddings = weights["decoder.embed_tokens.weight"]
    kept = np.zeros(len(embeddings), bool)
    kept[[_PAD, _WORD]] = True
    kept[_FIRST_PIECE : _FIRST_PIECE + _N_PIECES] = True
    embeddings[~kept] = 0
    weights["adapter.linear_2.weight"] *= 40
    write_folder(folder, "native", weights)
    return folder


def noise(seconds: float, seed: int) -> np.ndarray:
    """Tones that change every 160 ms, some silence and some hiss between them, 16 kHz."""
    rng = np.random.default_rng(seed)
    n = round(16000 * seconds)
    samples = np.zeros(n)
    for start in range(0, n, 2560):
        t = np.arange(min(2560, n - start)) / 16000
        for frequency in rng.uniform(100, 7000, rng.integers(0, 4)):
            samples[start : start + len(t)] += rng.uniform(0, 0.3) * np.sin(
                2 * np.pi * frequency * t
            )
        samples[start : start + len(t)] += rng.normal(0, 10 ** rng.uniform(-5, -1.5), len(t))
    return samples.clip(-1, 1).astype(np.float32)


def live_alone(pipeline: Pipeline, samples: np.ndarray, delay_ms: int) -> Transcription:
    session = pipeline.stream(transcription_delay_ms=delay_ms)
    session.feed(samples)
    session.close()
    while not session.done:
        session.step()
    return session.result()
