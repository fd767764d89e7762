from __future__ import annotations

import json
import os
import time

import pytest

from voxmlx.batch.inputs import Item
from voxmlx.batch.plan import check_settings, is_done, make_plan, write_errors
from voxmlx.batch.store import LocalStore, RemoteStore, open_store
from voxmlx.errors import OutputError


@pytest.fixture(params=["local", "object store", "other filesystem"])
def store(request, tmp_path):
    place = {
        "local": str(tmp_path / "out"),
        "object store": f"memory://{tmp_path.name}/out",
        "other filesystem": f"file://{tmp_path}/out",
    }[request.param]
    store = open_store(place)
    assert isinstance(store, LocalStore if request.param == "local" else RemoteStore)
    return store


def test_files_are_written_listed_and_removed(store):
    assert store.names() == set()
    store.write("sub/a.txt", "hello ü\n")
    store.write("sub/a.txt", "again\n")
    assert (store.names(), store.read("sub/a.txt")) == ({"sub/a.txt"}, "again\n")
    assert store.exists("sub/a.txt") and not store.exists("a.txt")
    store.remove("sub/a.txt")
    store.remove("sub/a.txt")
    assert store.names() == set()


def test_unfinished_writes_do_not_count(tmp_path):
    store = LocalStore(tmp_path)
    fresh, dead = tmp_path / ".voxmlx-1.tmp", tmp_path / ".voxmlx-2.tmp"
    fresh.write_text("half")
    dead.write_text("half")
    os.utime(dead, (time.time() - 1000,) * 2)
    assert store.names() == set()
    assert fresh.exists() and not dead.exists()


def test_plan_holds_what_has_no_last_output(store):
    items = [Item(name, name + ".wav") for name in ("a", "b", "c", "d/e")]
    store.write("a.txt", "")
    store.write("a.json", "")
    store.write("b.txt", "")
    store.write("d/e.error.json", json.dumps({"input": "d/e.wav", "error": "why"}))
    plan = make_plan(items, store, ["txt", "json"])
    assert ([item.name for item in plan.todo], plan.n_done, plan.n_failed) == (["b", "c"], 1, 1)
    assert [is_done(item, store, ["txt", "json"]) for item in items] == [True, False, False, True]
    assert write_errors(items, store) == 1
    assert json.loads(store.read("errors.jsonl")) == {"input": "d/e.wav", "error": "why"}
    again = make_plan(items, store, ["txt", "json"], retry_errors=True)
    assert ([item.name for item in again.todo], again.n_failed) == (["b", "c", "d/e"], 0)
    assert write_errors(items, store) == 0
    assert not store.exists("errors.jsonl")


def test_other_settings_need_another_folder(store):
    check_settings(store, {"delay": 480})
    check_settings(store, {"delay": 480})
    with pytest.raises(OutputError, match="made with delay=480, not 960; take another folder"):
        check_settings(store, {"delay": 960})
    store.write(".voxmlx-batch.json", "{")
    with pytest.raises(OutputError, match="is damaged; delete it"):
        check_settings(store, {"delay": 480})


def test_place_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is not a folder"):
        open_store(str(tmp_path / "file"))
