"""Samples to audio embeddings, incrementally: mel on the CPU, encoder and adapter on the device.

It knows the padding on the left of a stream, but neither the prompt nor the delay.
"""

from __future__ import annotations

from collections import deque

import mlx.core as mx
import numpy as np

from voxmlx.audio.mel import LogMelSpectrogram
from voxmlx.models.voxtral_realtime import VoxtralRealtime


class AudioEmbedder:
    """One stream of audio embeddings.

    Args:
        model: The network.
        max_rows: Most positions (80 ms) computed by one :meth:`encode`.
    """

    def __init__(self, model: VoxtralRealtime, max_rows: int):
        config = model.config
        self.max_rows = max_rows
        self._model = model
        self._mel = LogMelSpectrogram(config.audio)
        self._frames: deque[np.ndarray] = deque()
        self._n_frames = 0
        self._state = model.encoder.make_state(max_rows * config.downsample_factor)
        left = config.n_left_pad_tokens * config.audio.samples_per_token
        self.feed(np.zeros(left, np.float32))

    @property
    def n_ready(self) -> int:
        """Positions whose mel frames are complete and not encoded yet."""
        return self._n_frames // self._model.config.frames_per_token

    def feed(self, samples: np.ndarray) -> None:
        """Take more audio, ``(n,)`` float32 at the model's rate; touches no device."""
        self._push(self._mel.feed(samples))

    def encode(self, max_rows: int | None = None) -> mx.array:
        """Embed what is ready, at most ``max_rows`` positions: ``(1, n, D)``, not evaluated."""
        per_row = self._model.config.frames_per_token
        limit = self.max_rows if max_rows is None else min(max_rows, self.max_rows)
        n = min(limit, self.n_ready) * per_row
        mel = self._pop(n)
        return self._model.embed_audio(mx.array(mel)[None], self._state)

    def drop(self) -> None:
        """Forget what is ready."""
        self._frames.clear()
        self._n_frames = 0

    def _push(self, frames: np.ndarray) -> None:
        if len(frames):
            self._frames.append(frames)
            self._n_frames += len(frames)

    def _pop(self, n: int) -> np.ndarray:
        """Take the oldest ``n`` mel frames, ``(n, n_mels)``."""
        parts = [np.zeros((0, self._model.config.audio.n_mels), np.float32)]
        self._n_frames -= n
        while n > 0:
            frames = self._frames.popleft()
            parts.append(frames[:n])
            if len(frames) > n:
                self._frames.appendleft(frames[n:])
            n -= min(n, len(frames))
        return np.concatenate(parts)
