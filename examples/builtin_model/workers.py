"""What programs speaking on CPU cores share: their command line, and shards until time is over."""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from multiprocessing import Process
from pathlib import Path
from typing import Any

from common import build_shard

RATE = 16_000


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
    wait_for(work, args)


def wait_for(
    work: Callable[[argparse.Namespace, int, float], None], args: argparse.Namespace
) -> None:
    """Start ``--workers`` processes, whose time begins now, and wait for them."""
    began = time.time()
    processes = [Process(target=work, args=(args, w, began)) for w in range(args.workers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


def lines_of(args: argparse.Namespace, worker: int, rng: random.Random) -> list[str]:
    """A worker's share of the lines to train on, shuffled."""
    rows = (line.rstrip("\n").split("\t") for line in open(args.text))
    lines = [row[3] for row in rows if row[0] == "train"][worker :: args.workers]
    rng.shuffle(lines)
    return lines


def write_shards(
    args: argparse.Namespace,
    began: float,
    source: str,
    name: str,
    first: int,
    speak: Callable[[], list[dict[str, Any]]],
    wanted: Callable[[int], int],
) -> None:
    """Write shards until ``--seconds`` are over or there are ``--shards``.

    Args:
        args: The options; ``out``, ``seconds`` and ``shards`` are read.
        began: When the time began.
        source: What the clips are of.
        name: What the names of the shards begin with.
        first: Number of the first shard; earlier ones count.
        speak: Makes some clips, perhaps none.
        wanted: How many clips a shard of a number takes.
    """
    index, made = first, 0.0
    while time.time() - began < args.seconds and (not args.shards or index < args.shards):
        clips: list[dict[str, Any]] = []
        while len(clips) < wanted(index) and time.time() - began < args.seconds:
            clips += speak()
        if not clips:
            break
        shard = build_shard(clips, source)
        shard.save(args.out / f"{name}_{index:04d}")
        index += 1
        made += float(shard.length.sum()) / RATE
        print(
            f"{name}: {index} shards of {source}, {made / 3600:.2f} h, {len(clips)} clips, "
            f"{made / (time.time() - began):.0f} x real time",
            flush=True,
        )
