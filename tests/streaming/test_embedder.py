"""Mel queues count positions before they compute them; sparing work bounds what is under way."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from tests.generation.tiny_model import tiny_realtime
from voxmlx.streaming.embedder import (
    UNDER_WAY_BYTES,
    AudioEmbedder,
    MelQueue,
    little_under_way,
    take_together,
)

MODEL = tiny_realtime()
LEFT = MODEL.config.n_left_pad_tokens


def test_a_position_is_complete_with_the_last_sample_of_its_last_window():
    queue = MelQueue(MODEL.config)
    assert queue.n_positions == LEFT - 1  # the windows of the last one reach into the audio
    queue.feed(np.zeros(39, np.float32))
    assert queue.n_positions == LEFT - 1
    queue.feed(np.zeros(1, np.float32))
    assert queue.n_positions == LEFT


def test_samples_are_copied_when_they_come():
    queues = [MelQueue(MODEL.config) for _ in range(2)]
    samples = np.random.default_rng(0).normal(size=4000).astype(np.float32)
    for queue in queues:
        queue.feed(samples)
    first = queues[0].take(100)
    samples[:] = 0

    assert np.array_equal(queues[1].take(100), first)
    assert first.any()


def test_queues_of_different_length_are_taken_together():
    rng = np.random.default_rng(1)
    pieces = [rng.normal(size=n).astype(np.float32) for n in (0, 1280, 5000)]
    queues, alone = ([MelQueue(MODEL.config) for _ in pieces] for _ in "ab")
    for piece, *pair in zip(pieces, queues, alone, strict=True):
        for queue in pair:
            queue.feed(piece)

    for n in (30, 2, 8):
        together = take_together([(queue, n) for queue in queues])
        for frames, queue in zip(together, alone, strict=True):
            assert np.array_equal(frames, queue.take(n))
    queues[2].drop()
    assert queues[2].n_positions == 0 and len(queues[2].take(3)) == 0


def test_sparing_work_bounds_memory_and_gives_the_same():
    before = mx.get_memory_limit()
    plain, sparing = AudioEmbedder(MODEL, 2), AudioEmbedder(MODEL, 2, sparing=True)
    for _ in range(3):
        assert mx.array_equal(plain.encode(), sparing.encode())
    assert mx.get_memory_limit() == before

    with pytest.raises(KeyError), little_under_way():
        assert mx.get_memory_limit() <= mx.get_active_memory() + UNDER_WAY_BYTES
        raise KeyError
    assert mx.get_memory_limit() == before
