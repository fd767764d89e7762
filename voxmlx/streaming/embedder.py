"""Samples to audio embeddings, incrementally: mel on the CPU, encoder and adapter on the device.

It knows the padding on the left of a stream, but neither the prompt nor the delay.
"""

from __future__ import annotations

from collections import deque

import mlx.core as mx
import numpy as np

from voxmlx.audio.mel import LogMelSpectrogram
from voxmlx.config import KVCacheConfig, ModelConfig
from voxmlx.generation.encode import encode_program
from voxmlx.models.voxtral_realtime import VoxtralRealtime


class MelQueue:
    """Mel frames of one stream, taken by whole positions. Touches no device.

    Args:
        config: Numbers of the model.
    """

    def __init__(self, config: ModelConfig):
        self._config = config
        self._mel = LogMelSpectrogram(config.audio)
        self._frames: deque[np.ndarray] = deque()
        self._n_frames = 0
        left = config.n_left_pad_tokens * config.audio.samples_per_token
        self.feed(np.zeros(left, np.float32))

    @property
    def n_positions(self) -> int:
        """Positions (80 ms) whose mel frames are complete and not taken yet."""
        return self._n_frames // self._config.frames_per_token

    def feed(self, samples: np.ndarray) -> None:
        """Take more audio, ``(n,)`` float32 at the model's rate."""
        frames = self._mel.feed(samples)
        if len(frames):
            self._frames.append(frames)
            self._n_frames += len(frames)

    def take(self, max_positions: int) -> np.ndarray:
        """The oldest frames, of at most ``max_positions`` positions: ``(8 * n, n_mels)``."""
        n = min(max_positions, self.n_positions) * self._config.frames_per_token
        parts = [np.zeros((0, self._config.audio.n_mels), np.float32)]
        self._n_frames -= n
        while n > 0:
            frames = self._frames.popleft()
            parts.append(frames[:n])
            if len(frames) > n:
                self._frames.appendleft(frames[n:])
            n -= min(n, len(frames))
        return np.concatenate(parts)

    def drop(self) -> None:
        """Forget what is ready."""
        self._frames.clear()
        self._n_frames = 0


class AudioEmbedder:
    """One stream of audio embeddings.

    Args:
        model: The network.
        max_rows: Most positions (80 ms) computed by one :meth:`encode`.
        kv: How keys and values are compressed; ``None`` keeps them as they are.
    """

    def __init__(self, model: VoxtralRealtime, max_rows: int, kv: KVCacheConfig | None = None):
        self.max_rows = max_rows
        self._queue = MelQueue(model.config)
        n_frames = max_rows * model.config.downsample_factor
        self._state = model.encoder.make_state(n_frames, kv=kv)
        self._program = encode_program(model)

    @property
    def n_ready(self) -> int:
        """Positions whose mel frames are complete and not encoded yet."""
        return self._queue.n_positions

    def feed(self, samples: np.ndarray) -> None:
        """Take more audio, ``(n,)`` float32 at the model's rate; touches no device."""
        self._queue.feed(samples)

    def encode(self, max_rows: int | None = None) -> mx.array:
        """Embed what is ready, at most ``max_rows`` positions: ``(1, n, D)``, not evaluated."""
        limit = self.max_rows if max_rows is None else min(max_rows, self.max_rows)
        return self._program(mx.array(self._queue.take(limit))[None], self._state)

    def drop(self) -> None:
        """Forget what is ready."""
        self._queue.drop()
