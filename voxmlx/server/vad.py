"""Turns by loudness: when does speech start and stop. Knows samples; neither models nor messages.

Frames of 20 ms are compared with a noise floor that follows the quietest ones. This is the plain
kind of detector that ``server_vad`` stands for; where a microphone is noisy, turn it off and
commit by hand: the model itself needs no turns.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from voxmlx.server.pcm import Samples

FRAME_S = 0.02
START_FRAMES = 3
"""Loud frames in a row that start a turn: shorter sounds are clicks."""
QUIETEST_DB = -55.0
"""Below this nothing is speech (a quiet room through a laptop's microphone)."""
MIN_MARGIN_DB, MARGIN_RANGE_DB = 4.0, 16.0
"""Margin over the noise floor at thresholds 0 and 1; the usual 0.5 asks for 12 dB."""
FLOOR_RISE_DB = 0.04
"""How far the floor climbs in a frame (2 dB a second): slower than words, faster than a fan."""


@dataclass(frozen=True)
class SpeechStarted:
    """A turn starts; ``at_ms`` counts from the first sample and includes the prefix."""

    at_ms: int


@dataclass(frozen=True)
class Speech:
    """Audio of the open turn."""

    samples: Samples = field(compare=False)


@dataclass(frozen=True)
class SpeechStopped:
    """The turn is over."""

    at_ms: int


VadEvent = SpeechStarted | Speech | SpeechStopped


class EnergyVad:
    """Cut a stream into turns.

    Args:
        sample_rate: In Hz.
        threshold: 0 to 1; higher needs louder speech.
        prefix_padding_ms: Audio before the detected start that belongs to the turn.
        silence_duration_ms: Silence that ends a turn; it belongs to the turn.
    """

    def __init__(
        self,
        sample_rate: int,
        threshold: float = 0.5,
        prefix_padding_ms: int = 300,
        silence_duration_ms: int = 500,
    ):
        self.speaking = False
        self._rate = sample_rate
        self._frame = max(1, round(sample_rate * FRAME_S))
        self._margin_db = MIN_MARGIN_DB + MARGIN_RANGE_DB * threshold
        n_prefix = max(0, round(prefix_padding_ms / 1000 / FRAME_S))
        self._prefix: deque[Samples] = deque(maxlen=n_prefix + START_FRAMES)
        self._silence_frames = max(1, round(silence_duration_ms / 1000 / FRAME_S))
        self._floor_db = QUIETEST_DB
        self._run = 0
        self._n_frames = 0
        self._rest: Samples = np.zeros(0, np.float32)

    def feed(self, samples: Samples) -> list[VadEvent]:
        """Take more audio, ``(n,)``, and say what it holds."""
        samples = np.concatenate([self._rest, samples])
        n = len(samples) // self._frame
        self._rest = samples[n * self._frame :]
        events: list[VadEvent] = []
        speech: list[Samples] = []
        for frame in samples[: n * self._frame].reshape(n, self._frame):
            self._n_frames += 1
            loud = self._is_loud(frame)
            if self.speaking:
                speech.append(frame)
                self._run = 0 if loud else self._run + 1
                if self._run >= self._silence_frames:
                    events.append(Speech(np.concatenate(speech)))
                    events.append(SpeechStopped(self._ms(0)))
                    speech, self._run, self.speaking = [], 0, False
                continue
            self._prefix.append(frame)
            self._run = self._run + 1 if loud else 0
            if self._run >= START_FRAMES:
                events.append(SpeechStarted(self._ms(len(self._prefix))))
                speech = list(self._prefix)
                self._prefix.clear()
                self._run, self.speaking = 0, True
        if speech:
            events.append(Speech(np.concatenate(speech)))
        return events

    def stop(self) -> Samples:
        """End the open turn by hand; returns audio of it that was not given out yet."""
        rest, self._rest = self._rest, np.zeros(0, np.float32)
        held = [*self._prefix, rest]
        self._prefix.clear()
        self._run, self.speaking = 0, False
        return np.concatenate(held)

    def _ms(self, frames_back: int) -> int:
        return round((self._n_frames - frames_back) * FRAME_S * 1000)

    def _is_loud(self, frame: Samples) -> bool:
        power = float(np.mean(np.square(frame, dtype=np.float64)))
        level_db = 10 * np.log10(power + 1e-12)
        loud = bool(level_db > max(QUIETEST_DB, self._floor_db + self._margin_db))
        self._floor_db = min(level_db, self._floor_db + FLOOR_RISE_DB)
        self._floor_db = max(self._floor_db, -90.0)
        return loud
