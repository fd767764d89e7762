from __future__ import annotations

import os
import threading

import pytest

from voxmlx.errors import OutputError
from voxmlx.writers import atomic_write, make_folder


def test_file_appears_complete(tmp_path):
    path = tmp_path / "a ü 今.txt"
    with atomic_write(path) as file:
        file.write("one\n")
        assert not path.exists()
    assert path.read_bytes() == b"one\n"
    assert os.listdir(tmp_path) == [path.name]


def test_failure_keeps_the_earlier_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyError):
        with atomic_write(path) as file:
            file.write("half")
            raise KeyError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_missing_folder_is_named(tmp_path):
    path = tmp_path / "no" / "a.txt"
    with pytest.raises(OutputError, match="no/a.txt: cannot be written: No such file or directory"):
        with atomic_write(path):
            pass


def test_folder_as_target_is_refused(tmp_path):
    with pytest.raises(OutputError, match="Is a directory"):
        with atomic_write(tmp_path):
            pass
    assert tmp_path.is_dir()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has /dev/full")
def test_full_disk_is_named():
    with pytest.raises(OutputError, match="/dev/full: cannot be written: No space left on device"):
        with atomic_write("/dev/full") as file:
            file.write("text")


def test_links_are_followed(tmp_path):
    target = tmp_path / "target.txt"
    link = tmp_path / "link.txt"
    link.symlink_to(target)
    with atomic_write(link) as file:
        file.write("x")
    assert link.is_symlink()
    assert target.read_text() == "x"


def test_longest_file_name_works(tmp_path):
    path = tmp_path / ("n" * 251 + ".txt")
    with atomic_write(path) as file:
        file.write("x")
    assert path.read_text() == "x"


def test_pipe_is_written_directly(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    got = []
    reader = threading.Thread(target=lambda: got.append(path.read_text()))
    reader.start()
    with atomic_write(path) as file:
        file.write("x")
    reader.join()
    assert got == ["x"]
    assert path.is_fifo()


def test_folders_are_made_once(tmp_path):
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_file_in_the_way_of_a_folder_is_named(tmp_path):
    (tmp_path / "a").write_text("")
    for path in (tmp_path / "a", tmp_path / "a" / "b"):
        with pytest.raises(OutputError, match=f"{path}: is not a folder; give another one"):
            make_folder(path)
    with pytest.raises(OutputError, match="cannot be written: File name too long"):
        make_folder(tmp_path / ("n" * 300))
