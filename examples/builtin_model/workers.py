"""The command line that programs speaking on CPU cores share."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from multiprocessing import Process
from pathlib import Path


def run(
    work: Callable[[argparse.Namespace, int, float], None],
    about: str,
    engine: str,
    seconds: float,
    lines_per_shard: int,
) -> None:
    """Read the options, start the workers and wait for them.

    Args:
        work: Called in each process with the options, its number and the time of the start.
        about: First line of the help.
        engine: Name of the option that gives the engine's folder, such as ``espeak``.
        seconds: Default for ``--seconds``.
        lines_per_shard: Default for ``--lines-per-shard``.
    """
    parser = argparse.ArgumentParser(description=about)
    for name in (f"--{engine}", "--text", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=seconds)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--shards", type=int, default=0, help="at most so many a worker")
    parser.add_argument("--lines-per-shard", type=int, default=lines_per_shard)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    began = time.time()
    processes = [Process(target=work, args=(args, w, began)) for w in range(args.workers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
