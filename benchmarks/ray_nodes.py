"""Archives on one Ray node against two, both on this machine.

    python -m benchmarks.ray_nodes --model tiny --files 200

Every node is a raylet with one CPU and so holds one model. Printed is the time from the first
result to the last, which leaves out the start of Ray and the loading of models, and what processor
time the machine had left: on few shared cores two nodes share what one had.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.kill_batch import SPEECH, make_recordings
from voxmlx.batch.cluster import run_on_cluster
from voxmlx.batch.inputs import Item, find_items
from voxmlx.pipeline import load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_recordings(folder / "in", SPEECH, arguments.files, np.random.default_rng(0))
        items = find_items([str(folder / "in")])
        for n_nodes in arguments.nodes:
            place = str(folder / f"out{n_nodes}")
            whole_s, rate = measure(items, arguments.model, place, n_nodes, arguments.batch_size)
            print(
                f"{n_nodes} nodes: {whole_s:.1f} s in all, {rate:.2f} recordings a second after "
                f"the first, {idle():.0%} of the cores idle meanwhile",
                flush=True,
            )


def measure(
    items: list[Item], model: str, place: str, n_nodes: int, rows: int
) -> tuple[float, float]:
    """Seconds of a whole run, and recordings a second after the first result."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    for _ in range(n_nodes - 1):
        cluster.add_node(num_cpus=1)
    try:
        ray.init(address=cluster.address, log_to_driver=False)
        started = time.monotonic()
        news = run_on_cluster(
            items, partial(load, model), place, ["txt"], address=cluster.address, rows=rows
        )
        next(news)
        first = time.monotonic()
        idle()
        n_more = sum(1 for _ in news)
        ended = time.monotonic()
    finally:
        ray.shutdown()
        cluster.shutdown()
    return ended - started, n_more / (ended - first)


_clock: list[tuple[int, int]] = [(0, 0)]


def idle() -> float:
    """Share of the cores' time that was idle since the last call (Linux)."""
    ticks = [int(x) for x in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    before, now = _clock[-1], (ticks[3] + ticks[4], sum(ticks))
    _clock.append(now)
    return (now[0] - before[0]) / max(1, now[1] - before[1])


if __name__ == "__main__":
    main()
