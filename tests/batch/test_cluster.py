"""A Ray cluster of two nodes on this machine, one of which is lost in mid-work."""

from __future__ import annotations

import importlib.util
from functools import partial

import pytest

from tests.batch.conftest import texts
from voxmlx.batch.cluster import run_on_cluster
from voxmlx.batch.inputs import find_items
from voxmlx.batch.plan import make_plan
from voxmlx.batch.store import open_store
from voxmlx.errors import MissingExtraError
from voxmlx.pipeline import load

HAS_RAY = importlib.util.find_spec("ray") is not None


@pytest.mark.skipif(HAS_RAY, reason="Ray is installed")
def test_missing_ray_is_named(archive, tmp_path):
    items = find_items([str(archive)])
    with pytest.raises(MissingExtraError, match=r'pip install "voxmlx\[ray\]>='):
        list(run_on_cluster(items, load, str(tmp_path), ["txt"], address="local"))


@pytest.mark.slow
@pytest.mark.skipif(not HAS_RAY, reason="needs the extra ray")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(900)
def test_lost_node_costs_only_what_it_had_not_finished(archive, model, tmp_path):
    import ray
    from ray.cluster_utils import Cluster

    folder = tmp_path / "out"
    items = find_items([str(archive)])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    try:
        ray.init(address=cluster.address)
        news = run_on_cluster(
            items,
            partial(load, str(model)),
            str(folder),
            ["txt"],
            address=cluster.address,
            rows=2,
            on_eos="restart",
        )
        done = [next(news)]
        born = {name: (folder / name).stat().st_mtime_ns for name in texts(folder)}
        cluster.remove_node(second, allow_graceful=False)
        done += list(news)
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert make_plan(items, open_store(str(folder)), ["txt"]).todo == []
    assert all((folder / name).stat().st_mtime_ns == time_ns for name, time_ns in born.items())
    assert {each.item for each in done} <= set(items)
