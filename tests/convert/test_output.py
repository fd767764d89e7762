"""A folder appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from tests import tiny_checkpoints as tiny
from voxmlx.checkpoints.load import load_model
from voxmlx.errors import CheckpointError, OutputError
from voxmlx_convert.output import check_space, new_folder

ROOT = Path(__file__).parents[2]


def test_folder_is_renamed_at_the_end(tmp_path):
    with new_folder(tmp_path / "deep" / "out") as folder:
        (folder / "file").write_text("x")
        assert not (tmp_path / "deep" / "out").exists()

    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out"]
    assert (tmp_path / "deep" / "out" / "file").read_text() == "x"


def test_failure_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), new_folder(tmp_path / "out") as folder:
        (folder / "file").write_text("x")
        raise RuntimeError

    assert list(tmp_path.iterdir()) == []


def test_existing_folder_is_kept(tmp_path):
    (tmp_path / "out").mkdir()

    with pytest.raises(OutputError) as info, new_folder(tmp_path / "out"):
        pass
    assert str(info.value) == f"{tmp_path}/out: the folder exists; use --overwrite to replace it"


def test_existing_folder_is_replaced_when_asked(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("x")

    with new_folder(tmp_path / "out", overwrite=True) as folder:
        (folder / "new").write_text("y")
        assert (tmp_path / "out" / "old").exists()

    assert [p.name for p in (tmp_path / "out").iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_failure_keeps_the_folder_that_was_to_be_replaced(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("x")

    with pytest.raises(RuntimeError), new_folder(tmp_path / "out", overwrite=True):
        raise RuntimeError

    assert (tmp_path / "out" / "old").exists()


def test_file_in_the_way(tmp_path):
    (tmp_path / "out").write_text("x")

    with pytest.raises(OutputError) as info, new_folder(tmp_path / "out", overwrite=True):
        pass
    assert str(info.value) == (f"{tmp_path}/out: a file of this name exists; choose another folder")


def test_what_a_killed_run_left_is_removed(tmp_path):
    pid = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True
    )
    dead = tmp_path / f".out.partial-{int(pid.stdout)}"
    alive = tmp_path / f".out.partial-{os.getppid()}"
    dead.mkdir()
    alive.mkdir()

    with new_folder(tmp_path / "out"):
        pass

    assert not dead.exists()
    assert alive.exists()


def test_space_is_checked_first(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 1_500_000_000))

    check_space(tmp_path / "a" / "b", 1_400_000_000)
    with pytest.raises(OutputError) as info:
        check_space(tmp_path / "a" / "b", 2_436_000_000)
    assert str(info.value) == f"{tmp_path}/a/b: 2.50 GB are needed, the disk has 1.50 GB free"


KILLED_RUN = """
import sys, time
from pathlib import Path
from voxmlx_convert import convert as module
from voxmlx_convert.convert import Options, convert

groups = []

def stop(group):
    groups.append(group)
    if len(groups) == 20:
        print("half way", flush=True)
        time.sleep(60)

convert(sys.argv[1], Path(sys.argv[2]), Options(), on_group=stop)
"""


def test_killed_run_leaves_no_folder_that_loads(tmp_path):
    source = tiny.write_folder(tmp_path / "source", "native")
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED_RUN, str(source), str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'convert'}"},
    )
    with process:
        assert process.stdout.readline() == b"half way\n"
        process.send_signal(signal.SIGKILL)
        process.wait()

    left = [path for path in tmp_path.iterdir() if path != source]
    assert [path.name for path in left] == [f".out.partial-{process.pid}"]
    with pytest.raises(CheckpointError):
        load_model(left[0])
