"""How many real-time sessions a CPU with nothing else to do would carry.

    python benchmarks/serve_cpu.py --sessions 4 8 16 24 voxmlx/assets/examples/two_minutes.ogg

As ``benchmarks/serve_load.py``, on a clock of its own that runs on by the processor time of the
engine's work (of all its threads, as if none ran beside another) and otherwise jumps to the next
piece of audio. So other programs on the machine do not count.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.serve_load import CHUNK, CHUNK_S, P95_GOAL_MS, P99_GOAL_MS, speech
from voxmlx.audio.decode import read_audio
from voxmlx.engine.engine import Engine
from voxmlx.engine.request import TurnOptions, Update
from voxmlx.engine.scheduler import Limits, period_s
from voxmlx.pipeline import Pipeline, load


class Clock:
    """Seconds of simulated time."""

    def __init__(self) -> None:
        self.base_s = 0.0
        self._began: float | None = None

    @property
    def now_s(self) -> float:
        """The time; it runs only while there is work."""
        return self.base_s + (0.0 if self._began is None else time.process_time() - self._began)

    def work(self) -> None:
        """Run from now on."""
        self._began = time.process_time()

    def rest(self) -> None:
        """Stand still."""
        self.base_s, self._began = self.now_s, None


class Simulation:
    """Some sessions on one engine.

    Args:
        pipeline: The model.
        samples: What each session says.
        skip_s: Audio at the start of each session that is not counted.
    """

    def __init__(self, pipeline: Pipeline, samples: list[np.ndarray], skip_s: float):
        self.clock = Clock()
        self.lags_ms: list[float] = []
        self.busy_s = 0.0
        self._samples, self._skip_s = samples, skip_s
        self._engine = Engine(lambda: pipeline, Limits(max_live=len(samples)))
        self._engine._pipeline = pipeline
        self._engine._open_pools(pipeline)
        self._engine._ready.set()
        self._engine._thread.is_alive = lambda: True  # type: ignore[method-assign]
        self._turns = [
            self._engine.open(TurnOptions(), self._teller(i)) for i in range(len(samples))
        ]

    def start_s(self, i: int) -> float:
        """When a session's audio begins."""
        return CHUNK_S * i / len(self._samples)

    def run(self) -> None:
        """Feed everything at its time."""
        engine, clock, pending = self._engine, self.clock, self._arrivals()
        arrival = next(pending, None)
        while arrival is not None:
            while arrival is not None and arrival[0] <= clock.now_s:
                _, i, k = arrival
                piece = self._samples[i][k * CHUNK : (k + 1) * CHUNK]
                self._turns[i].feed(piece, 16000)
                arrival = next(pending, None)
            engine._rest_until_s = 0.0
            if not engine._commands.empty():
                engine._take_commands()
            began_s = clock.now_s
            clock.work()
            engine._tick(engine._pipeline)
            clock.rest()
            tick_s = clock.now_s - began_s
            self.busy_s += tick_s
            if not any(job.pending for job in engine._jobs.values()):
                due_s = clock.now_s if arrival is None else arrival[0]
                clock.base_s = max(clock.base_s, due_s, began_s + period_s(tick_s))

    def _arrivals(self) -> Iterator[tuple[float, int, int]]:
        """Time, session and number of each piece, in order."""
        for k in range(len(self._samples[0]) // CHUNK):
            for i in range(len(self._samples)):
                yield self.start_s(i) + (k + 1) * CHUNK_S, i, k

    def _teller(self, i: int):
        def tell(update: Update) -> None:
            if update.error is not None:
                raise SystemExit(str(update.error))
            if update.heard_s > self._skip_s:
                self.lags_ms.append(1e3 * (self.clock.now_s - self.start_s(i) - update.heard_s))

        return tell


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("recording")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--sessions", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--skip", type=float, default=1.0, help="seconds that are not counted")
    options = parser.parse_args()
    pipeline, sound = load(options.model), read_audio(Path(options.recording))
    for n in options.sessions:
        said = [speech(options.seconds, i, sound) for i in range(n)]
        run = Simulation(pipeline, said, options.skip)
        run.run()
        p50, p95, p99 = np.percentile(run.lags_ms, (50, 95, 99))
        line = {"sessions": n, "tokens": len(run.lags_ms)}
        line |= {"met": bool(p95 < P95_GOAL_MS and p99 < P99_GOAL_MS)}
        line |= {"p50_ms": round(p50, 1), "p95_ms": round(p95, 1), "p99_ms": round(p99, 1)}
        line |= {"busy": round(run.busy_s / run.clock.now_s, 2)}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
