"""Word latency of live sessions, as a machine with nothing else to do would show it.

    python benchmarks/latency.py --model tiny RECORDING...

Audio arrives in pieces of 80 ms on a clock of its own, which runs on by the processor time that the
session takes: while a step computes, audio piles up, and otherwise the clock waits for the next
piece. So other programs on the machine do not count. (``voxmlx live FILE --realtime`` measures the
same by the wall clock.)
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from voxmlx.audio.decode import read_audio
from voxmlx.pipeline import Pipeline, load
from voxmlx.streaming.latency import LatencyMeter

PIECE = 1280
RATE = 16000


def listen(pipeline: Pipeline, samples: np.ndarray, delay_ms: int, meter: LatencyMeter) -> float:
    """Run one session; returns processor seconds for one second of audio."""
    session = pipeline.stream(transcription_delay_ms=delay_ms)
    while session.pending:
        session.step()
    now_s = busy_s = 0.0
    n_fed = 0
    while not session.done:
        n_spoken = min(int(now_s * RATE) // PIECE * PIECE, len(samples))
        if now_s * RATE >= len(samples) and n_fed < len(samples):
            n_spoken = len(samples)
        if n_spoken > n_fed:
            session.feed(samples[n_fed:n_spoken])
            n_fed = n_spoken
            if n_fed == len(samples):
                session.close()
        if not session.pending:
            now_s = min((n_fed + PIECE) / RATE, len(samples) / RATE)
            continue
        started = time.process_time()
        events = session.step()
        spent_s = time.process_time() - started
        busy_s += spent_s
        now_s += spent_s
        for event in events:
            meter.add(event, now_s)
    return busy_s / (len(samples) / RATE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("recordings", nargs="+")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--delay", type=int, nargs="+", default=[80, 240, 480, 960, 2400])
    options = parser.parse_args()
    pipeline = load(options.model)
    recordings = [read_audio(path) for path in options.recordings]
    for delay_ms in options.delay:
        values: list[float] = []
        rtf = []
        for samples in recordings:
            meter = LatencyMeter()
            rtf.append(listen(pipeline, samples, delay_ms, meter))
            values += meter.latencies_s
        p50, p90, p99, most = np.percentile(values, [50, 90, 99, 100])
        print(
            f"delay {delay_ms:4d} ms: {len(values)} words, mean {np.mean(values):.3f} s, p50 "
            f"{p50:.3f}, p90 {p90:.3f}, p99 {p99:.3f}, max {most:.3f}; RTF {np.mean(rtf):.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
