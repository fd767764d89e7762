"""A tiny random model on disk, and what it says of a recording by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.tiny_checkpoints import write_folder
from voxmlx.pipeline import Pipeline
from voxmlx.types import Transcription


def write_model(folder: Path) -> Path:
    write_folder(folder, "native")
    return folder


def noise(seconds: float, seed: int) -> np.ndarray:
    """Loud and quiet stretches of noise, 16 kHz."""
    rng = np.random.default_rng(seed)
    n = round(16000 * seconds)
    envelope = np.repeat(rng.uniform(0, 0.3, n // 1600 + 1), 1600)[:n]
    return (rng.standard_normal(n) * envelope).astype(np.float32)


def live_alone(pipeline: Pipeline, samples: np.ndarray, delay_ms: int) -> Transcription:
    session = pipeline.stream(transcription_delay_ms=delay_ms)
    session.feed(samples)
    session.close()
    while not session.done:
        session.step()
    return session.result()
