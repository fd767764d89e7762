"""Sound for tests, made by formula: no recording is stored with the project."""

from __future__ import annotations

import numpy as np


def speech_like(seconds: float, sample_rate: int = 16000, seed: int = 0) -> np.ndarray:
    """Syllables of a gliding voice with pauses over faint noise, ``(n,)`` float32, below 0.5."""
    rng = np.random.default_rng(seed)
    n = round(seconds * sample_rate)
    t = np.arange(n) / sample_rate
    pitch = 120 + 30 * np.sin(2 * np.pi * 0.7 * t + seed)
    phase = 2 * np.pi * np.cumsum(pitch) / sample_rate
    voice = sum(np.sin(k * phase + 0.3 * k * k) / k for k in range(1, 18))
    syllables = np.clip(np.sin(2 * np.pi * 3.1 * t), 0, 1) * (np.sin(2 * np.pi * 0.4 * t) > -0.7)
    sound = 0.15 * syllables * voice + 0.003 * rng.standard_normal(n)
    return np.clip(sound, -0.5, 0.5).astype(np.float32)
