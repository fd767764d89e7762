"""Live use, simulated: samples come as fast as they are spoken, without waiting for them.

The clock is a number. It stands where the audio is, or later if the work so far took longer; so a
machine that is too slow shows as growing latency, as it would with a microphone.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from voxmlx.streaming.iterate import Session
from voxmlx.streaming.latency import LatencyMeter

CHUNK_S = 0.08
"""Audio that arrives at once: one position, as a microphone brings it."""


def run_live(
    session: Session,
    samples: np.ndarray,
    sample_rate: int = 16000,
    tail_s: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Play a recording to a session.

    Args:
        session: An open session; its result is complete at the end.
        samples: ``(n,)`` float32.
        sample_rate: Their rate in Hz.
        tail_s: Silence that the microphone still hears before it is switched off. With less than
            the delay, the last words come sooner than they would while speech goes on.
        clock: Tells the time in seconds; only differences count.

    Returns:
        Latency of each word in seconds, from its end in the audio to its last character as text.
    """
    meter = LatencyMeter()
    now_s = 0.0
    n = round(CHUNK_S * sample_rate)
    samples = np.concatenate([samples, np.zeros(round(tail_s * sample_rate), np.float32)])
    chunks = [samples[start : start + n] for start in range(0, len(samples), n)]
    for i, chunk in enumerate([*chunks, None]):
        if chunk is None:
            session.close()
        else:
            now_s = max(now_s, (i * n + len(chunk)) / sample_rate)
            session.feed(chunk)
        while session.pending:
            started = clock()
            events = session.step()
            now_s += clock() - started
            for event in events:
                meter.add(event, now_s)
    return meter.latencies_s
