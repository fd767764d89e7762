"""Every setting of a training run that changes with time."""

from __future__ import annotations

import math


def ramp(u: float, start: float, stop: float, a: float, b: float) -> float:
    """A before `start`, b after `stop`, linear between."""
    x = min(1.0, max(0.0, (u - start) / (stop - start)))
    return a + (b - a) * x


class Schedule:
    """Every setting that changes, by the share `u` of the training time that is over."""

    def __init__(self, warm: bool, real: float = 0.35) -> None:
        self.warm, self.most_real = warm, real

    def rate(self, u: float) -> float:
        """Learning rate as a share of the peak."""
        up, hold, stop = min(1.0, u / 0.02 + 0.01), 0.40 if self.warm else 0.35, 0.98
        if u < hold:
            return up
        x = min(1.0, (u - hold) / (stop - hold))
        return 0.005 + 0.995 * 0.5 * (1 + math.cos(math.pi * x))

    def encoder_alone(self, u: float) -> bool:
        """Whether only the phone loss reaches the encoder."""
        return u < 0.07 and not self.warm

    def phones(self, u: float) -> float:
        """Weight of the phone loss."""
        return ramp(u, 0.15, 0.8, 0.6 if self.warm else 1.0, 0.2)

    def forget(self, u: float) -> float:
        """Share of previous tokens that are replaced."""
        if self.warm:
            return ramp(u, 0.2, 0.8, 0.20, 0.06)
        return ramp(u, 0.4, 0.85, 0.30, 0.06)

    def pad(self, u: float) -> float:
        """Weight of a position where a pad is due."""
        return ramp(u, 0.1 if self.warm else 0.3, 0.8, 0.3, 0.7)

    def lost(self, u: float) -> float:
        """Share of positions whose sound the decoder does not get."""
        return ramp(u, 0.7, 0.95, 0.06, 0.02) if self.warm else ramp(u, 0.3, 0.6, 0.0, 0.05)

    def teach(self, u: float) -> float:
        """Weight of the distance to the teacher's vectors."""
        return ramp(u, 0.5, 0.9, 1.0, 0.3)

    def strength(self, u: float) -> float:
        """How rough the sound is at most."""
        return ramp(u, 0.6, 0.95, 1.0, 0.4) if self.warm else ramp(u, 0.08, 0.30, 0.25, 1.0)

    def vocoded(self, u: float) -> float:
        """Factor on the share of clips that a vocoder speaks again."""
        return ramp(u, 0.5, 0.9, 1.0, 0.4)

    def made(self, u: float) -> dict[str, float]:
        """Weights of the sources of made speech: many words first, clean speech at the end."""
        return {
            "kokoro": ramp(u, 0.6, 0.9, 0.36, 0.22),
            "kokoro_clean": ramp(u, 0.6, 0.9, 0.18, 0.52),
            "espeak": ramp(u, 0.5, 0.9, 0.38, 0.20),
            "festival": 0.06,
        }

    def real(self, u: float) -> float:
        """Share of recordings of people."""
        low = 0.7 if self.warm else 0.4
        return self.most_real * ramp(u, 0.25, 0.75, low, 1.0)
