"""Memory of the engine while live sessions and files come and go, on a simulated clock.

    python benchmarks/serve_soak.py --model random --minutes 30 --sessions 4

Every simulated second some sessions end and others begin; each gets a second of audio, and the
clock goes on when all of it is decoded. Prints the memory of the process and of the device for
each simulated minute. ``random`` is the small network of ``benchmarks/endless.py``.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from pathlib import Path

import mlx.core as mx
import numpy as np

from voxmlx.engine.engine import Engine
from voxmlx.engine.request import Kind, TurnOptions, Update
from voxmlx.engine.scheduler import Limits
from voxmlx.server.metrics import resident_bytes

REPORT_S = 60


class Counts:
    """How turns ended."""

    def __init__(self) -> None:
        self.done = self.failed = self.tokens = 0

    def tell(self, update: Update) -> None:
        """Take an update of any turn."""
        self.failed += update.error is not None
        if update.result is not None:
            self.done += 1
            self.tokens += len(update.result.tokens)


def second(rng: np.random.Generator) -> np.ndarray:
    """A second of tones and hiss."""
    t = np.arange(16000) / 16000
    tone = np.sin(2 * np.pi * rng.uniform(100, 4000) * t) * rng.uniform(0, 0.3)
    return (tone + rng.normal(0, 0.01, 16000)).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--sessions", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance, rng = random.Random(options.seed), np.random.default_rng(options.seed)
    from benchmarks.endless import open_pipeline

    engine = Engine(lambda: open_pipeline(options.model), Limits(max_live=2 * options.sessions + 8))
    engine.start()
    counts = Counts()
    turns: list = []
    started = time.monotonic()
    for clock_s in range(60 * options.minutes + 1):
        if clock_s % REPORT_S == 0:
            line = {"minute": clock_s // 60, "resident_mb": round(resident_bytes() / 1e6, 1)}
            line |= {"device_mb": round(mx.get_active_memory() / 1e6, 1), "open": len(turns)}
            line |= {"cache_mb": round(mx.get_cache_memory() / 1e6, 1)}
            line |= {"done": counts.done, "failed": counts.failed, "tokens": counts.tokens}
            print(json.dumps(line | {"wall_s": round(time.monotonic() - started)}), flush=True)
        while len(turns) < options.sessions and chance.random() < 0.5:
            kind = Kind.FILE if chance.random() < 0.2 else Kind.LIVE
            delay_ms = chance.choice((80, 480, 960, 2400))
            turns.append(engine.open(TurnOptions(delay_ms=delay_ms, kind=kind), counts.tell))
        for turn in list(turns):
            turn.feed(second(rng), 16000)
            if chance.random() < 0.05:
                turns.remove(turn)
                if chance.random() < 0.2:
                    turn.cancel()
                else:
                    turn.finish()
        while any(turn.backlog_s > 0.2 for turn in turns):
            time.sleep(0.002)
    engine.stop()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
