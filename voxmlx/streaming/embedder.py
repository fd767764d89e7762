"""Samples to audio embeddings, incrementally: mel on the CPU, encoder and adapter on the device.

It knows the padding on the left of a stream, but neither the prompt nor the delay.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import mlx.core as mx
import numpy as np

from voxmlx.audio.mel import frames_of
from voxmlx.cache.store import settle
from voxmlx.config import KVCacheConfig, ModelConfig
from voxmlx.generation.encode import encode_program
from voxmlx.models.voxtral_realtime import VoxtralRealtime

UNDER_WAY_BYTES = 8 * 2**20
"""Memory for what a device works on, beside weights and rings, where memory counts more than time.
An H200 held 16 MB for a position through the decoder of the 4B model without a limit, and 8.6 MB
with this one, in the same time (``benchmarks/results.md``)."""


@contextmanager
def little_under_way() -> Iterator[None]:
    """Let MLX wait for the device wherever it would hold more than :data:`UNDER_WAY_BYTES`."""
    before = mx.set_memory_limit(mx.get_active_memory() + UNDER_WAY_BYTES)
    try:
        yield
    finally:
        mx.set_memory_limit(before)


class MelQueue:
    """Sound of one stream, taken as mel frames by whole positions. Touches no device.

    Frames are computed when they are taken, so that those of many streams can be computed together
    (:func:`take_together`); they are those of :class:`voxmlx.audio.mel.LogMelSpectrogram`.

    Args:
        config: Numbers of the model.
    """

    def __init__(self, config: ModelConfig):
        self.audio = config.audio
        self._samples_per_token = config.frames_per_token * config.audio.hop_length
        # The first window begins half its length before the first sample.
        left = config.n_left_pad_tokens * self._samples_per_token + config.audio.window_size // 2
        self._parts = [np.zeros(left, np.float32)]
        self._n_samples = left
        self._n_missing = config.audio.window_size - config.audio.hop_length

    @property
    def n_positions(self) -> int:
        """Positions (80 ms) whose mel frames are complete and not taken yet."""
        return max(0, self._n_samples - self._n_missing) // self._samples_per_token

    def feed(self, samples: np.ndarray) -> None:
        """Take more audio, ``(n,)`` float32 at the model's rate."""
        self._parts.append(samples.copy())
        self._n_samples += len(samples)

    def take(self, max_positions: int) -> np.ndarray:
        """The oldest frames, of at most ``max_positions`` positions: ``(8 * n, n_mels)``."""
        return take_together([(self, max_positions)])[0]

    def take_samples(self, max_positions: int) -> np.ndarray:
        """The samples that these frames are made of."""
        n = min(max_positions, self.n_positions) * self._samples_per_token
        if len(self._parts) > 1:
            self._parts = [np.concatenate(self._parts)]
        samples = self._parts[0]
        self._parts = [samples[n:]]
        self._n_samples -= n
        return samples[: n + self._n_missing] if n else samples[:0]

    def drop(self) -> None:
        """Forget what is ready."""
        self.take_samples(self.n_positions)


def take_together(wanted: Sequence[tuple[MelQueue, int]]) -> list[np.ndarray]:
    """What :meth:`MelQueue.take` gives for some queues of one model and their positions."""
    config = wanted[0][0].audio
    return frames_of(config, [queue.take_samples(n) for queue, n in wanted])


class AudioEmbedder:
    """One stream of audio embeddings.

    Args:
        model: The network.
        max_rows: Most positions (80 ms) computed by one :meth:`encode`.
        kv: How keys and values are compressed; ``None`` keeps them as they are.
        sparing: Whether memory counts more than time: a call then waits until the device holds
            nothing more of it.
    """

    def __init__(
        self,
        model: VoxtralRealtime,
        max_rows: int,
        kv: KVCacheConfig | None = None,
        sparing: bool = False,
    ):
        self.max_rows = max_rows
        self._sparing = sparing
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
        """Embed what is ready, at most ``max_rows`` positions: ``(1, n, D)``."""
        limit = self.max_rows if max_rows is None else min(max_rows, self.max_rows)
        mel = mx.array(self._queue.take(limit))[None]
        if not self._sparing:
            return self._program(mel, self._state)
        with little_under_way():
            rows = self._program(mel, self._state)
            settle(rows)
        return rows

    def drop(self) -> None:
        """Forget what is ready."""
        self._queue.drop()
