"""The same work on many devices: Ray Data with one actor for each. Ray deals out, retries, heals.

A lost node costs what its actor had not finished: the retried block passes over what is done.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from voxmlx.batch.inputs import Item
from voxmlx.batch.store import open_store
from voxmlx.batch.work import Done, work
from voxmlx.errors import MissingExtraError
from voxmlx.offline import OfflinePipeline
from voxmlx.pipeline import Pipeline

BLOCKS_PER_ACTOR = 16
"""Blocks are dealt out whole: more even out the actors' ends, fewer fill their batches better."""


class Worker:
    """An actor: a model, and where outputs go.

    Args:
        load: Opens the model; called once on each device.
        place: Path or URL of the store, the same on every machine.
        formats: Names of formats.
        options: See :func:`voxmlx.batch.work.work`.
    """

    def __init__(
        self,
        load: Callable[[], Pipeline | OfflinePipeline],
        place: str,
        formats: Sequence[str],
        options: dict[str, Any],
    ):
        self._pipeline = load()
        self._store = open_store(place)
        self._formats = formats
        self._options = options

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[Any]]]:
        """Do a block of items and tell of each."""
        items = [Item(str(n), str(s)) for n, s in zip(batch["name"], batch["source"], strict=True)]
        for done in work(
            self._pipeline, items, self._store, self._formats, check=True, **self._options
        ):
            yield {
                "name": [done.item.name],
                "source": [done.item.source],
                "audio_s": [done.audio_s],
                "error": [done.error or ""],
            }


def run_on_cluster(
    items: Sequence[Item],
    load: Callable[[], Pipeline | OfflinePipeline],
    place: str,
    formats: Sequence[str],
    *,
    address: str,
    n_actors: int | None = None,
    **options: Any,
) -> Iterator[Done]:
    """Transcribe items on a Ray cluster and tell of each.

    Args:
        items: Recordings; their sources must be readable on every node.
        load: Opens the model; it must be importable there too.
        place: Path or URL of the store, the same on every node.
        formats: Names of formats.
        address: Of the cluster, ``auto`` for the one that this machine belongs to, or ``local`` to
            start one here.
        n_actors: Devices to use; ``None`` takes every GPU, or one actor a node without any.
        options: See :func:`voxmlx.batch.work.work`.

    Raises:
        MissingExtraError: If Ray is not installed.
    """
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise MissingExtraError("Work on many machines", "ray") from error
    started_here = not ray.is_initialized()
    if started_here:
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    try:
        n_gpus = int(ray.cluster_resources().get("GPU", 0))
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        n_cpus = 1
        if n_actors is None:
            n_actors = max(1, n_gpus or len(nodes))
            if not n_gpus:  # whole nodes, so that no two models share one
                n_cpus = max(1, int(min(node.get("CPU", 1) for node in nodes)))
        rows = [dataclasses.asdict(item) for item in items]
        per_block = max(1, -(-len(rows) // (n_actors * BLOCKS_PER_ACTOR)))
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        data = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // per_block))
        results = data.map_batches(
            Worker,
            fn_constructor_args=(load, place, list(formats), options),
            batch_size=per_block,
            compute=ray.data.ActorPoolStrategy(size=n_actors),
            num_cpus=n_cpus,
            num_gpus=1 if n_gpus else 0,
        )
        for row in results.iter_rows():
            item = Item(row["name"], row["source"])
            yield Done(item, float(row["audio_s"]), row["error"] or None)
    finally:
        if started_here:
            ray.shutdown()
