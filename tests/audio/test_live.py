from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from voxmlx.audio.live import PacedSource, SampleQueue


def ramp(n: int, start: int = 0) -> np.ndarray:
    return np.arange(start, start + n, dtype=np.float32)


def test_queue_gives_everything_at_once():
    queue = SampleQueue(100)
    queue.put(ramp(3))
    queue.put(ramp(0))
    queue.put(ramp(2, 3))

    assert np.array_equal(queue.take(0), ramp(5))
    assert queue.take(0).shape == (0,)


def test_full_queue_counts_what_it_loses():
    queue = SampleQueue(5)
    queue.put(ramp(4))
    queue.put(ramp(2, 4))
    queue.put(ramp(1, 6))

    assert queue.n_dropped == 2
    assert np.array_equal(queue.take(0), [0, 1, 2, 3, 6])


def test_waiting_writer_loses_nothing():
    queue = SampleQueue(10)

    def write():
        for start in range(0, 100, 5):
            queue.put(ramp(5, start), wait=True)
        queue.end()

    thread = threading.Thread(target=write)
    thread.start()
    parts = []
    while (part := queue.take(5)) is not None:
        parts.append(part)
    thread.join()

    assert np.array_equal(np.concatenate(parts), ramp(100))
    assert max(map(len, parts)) <= 15
    assert queue.n_dropped == 0


def test_end_comes_behind_the_samples():
    queue = SampleQueue(10)
    queue.put(ramp(2))
    queue.end(RuntimeError("gone"))
    queue.put(ramp(2))

    assert np.array_equal(queue.take(0), ramp(2))
    with pytest.raises(RuntimeError, match="gone"):
        queue.take(0)
    assert queue.take(0) is None


def test_end_wakes_a_waiting_writer():
    queue = SampleQueue(2)
    queue.put(ramp(2))
    thread = threading.Thread(target=queue.put, args=(ramp(1), True))
    thread.start()
    queue.end()
    thread.join(5)

    assert not thread.is_alive()


def test_paced_source_keeps_its_speed():
    source = PacedSource([ramp(250), ramp(0), ramp(250, 250)], 1000, chunk_s=0.05)
    started = time.monotonic()
    parts, times = [], []
    while (part := source.read(1.0)) is not None:
        if len(part):
            parts.append(part)
            times.append(time.monotonic() - started)
    given = np.cumsum([len(part) for part in parts]) / 1000

    assert np.array_equal(np.concatenate(parts), ramp(500))
    assert all(t >= end - 0.001 for t, end in zip(times, given, strict=True))
    assert all(len(part) % 50 == 0 for part in parts)


def test_late_reader_gets_all_that_was_spoken():
    source = PacedSource([ramp(1000)], 1000)
    source.read(0)
    time.sleep(0.25)

    assert len(source.read(0)) >= 240


def test_last_piece_may_be_short():
    source = PacedSource([ramp(130)], 1000, chunk_s=0.1)
    total = 0
    while (part := source.read(1.0)) is not None:
        total += len(part)

    assert total == 130


def test_stopped_paced_source_ends():
    source = PacedSource([ramp(100_000)], 1000)
    source.read(0)
    source.stop()

    assert source.read(0) is None
