from __future__ import annotations

import gzip
import io
import os
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest

from voxmlx.audio.source import SteadyFile, describe, open_file
from voxmlx.errors import AudioError

CONTENT = bytes(range(256)) * 5000  # more than one copied block


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path, monkeypatch):
    """Temporary files of a test go to a folder that must be empty again afterwards."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert list(folder.iterdir()) == []


@pytest.fixture
def path(tmp_path) -> Path:
    path = tmp_path / "a talk, été.bin"
    path.write_bytes(CONTENT)
    return path


def read(source: object) -> bytes:
    with open_file(source) as file:
        content = file.read()
        assert file.seek(0) == 0
        return content


class Pipe(io.RawIOBase):
    """A stream that can neither seek nor say how long it is."""

    def __init__(self, content: bytes):
        self._rest = content

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        n = min(len(buffer), len(self._rest), 777)
        buffer[:n], self._rest = self._rest[:n], self._rest[n:]
        return n


def test_paths_and_bytes(path):
    for source in (path, str(path), CONTENT, bytearray(CONTENT), memoryview(CONTENT)):
        assert read(source) == CONTENT


def test_open_files_are_read_from_their_start_and_left_open(path):
    for file in (open(path, "rb"), open(path, "rb", buffering=0), io.BytesIO(CONTENT)):
        with file:
            file.seek(99)
            assert read(file) == CONTENT
            assert not file.closed


def test_unwritten_buffers_are_included(tmp_path):
    with tempfile.NamedTemporaryFile(dir=tmp_path) as file:
        file.write(CONTENT[:100])
        assert read(file) == CONTENT[:100]


def test_uploads_held_in_memory(path):
    with tempfile.SpooledTemporaryFile(max_size=10_000_000) as file:
        file.write(CONTENT)
        assert read(file) == CONTENT


def test_decompressed_content_is_read_and_not_the_file_below(tmp_path):
    packed = tmp_path / "talk.gz"
    packed.write_bytes(gzip.compress(CONTENT))
    with gzip.open(packed) as file:
        assert read(file) == CONTENT


def test_streams_that_cannot_seek():
    assert read(Pipe(CONTENT)) == CONTENT
    assert read(io.BufferedReader(Pipe(CONTENT))) == CONTENT


def test_named_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(CONTENT,))
    writer.start()
    assert read(pipe) == CONTENT
    writer.join()


class FakeStdin:
    def __init__(self, buffer):
        self.buffer = buffer

    def isatty(self) -> bool:
        return False


def test_standard_input_from_a_pipe(monkeypatch):
    monkeypatch.setattr(sys, "stdin", FakeStdin(io.BufferedReader(Pipe(CONTENT))))
    assert read("-") == CONTENT


def test_standard_input_from_a_file(monkeypatch, path):
    with open(path, "rb") as file:
        monkeypatch.setattr(sys, "stdin", FakeStdin(file))
        assert read(Path("-")) == CONTENT


def test_no_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(AudioError, match="^standard input: holds no recording; pipe one in"):
        open_file("-")


def refuse(*args, **kwargs):
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize(
    "source, message",
    [
        ("no/such.wav", "no/such.wav: no such file"),
        ("", "'': no such file"),
        ("a\nb.wav", r"'a\nb.wav': no such file"),
        ("a\0b.wav", r"'a\x00b.wav': no such file; a path cannot hold a zero byte"),
        ("/dev/zero", "/dev/zero: is a device; give a recording"),
        (".", ".: is a folder; give the recordings in it"),
        ("x" * 5000, "x" * 5000 + ": cannot be read: File name too long"),
    ],
)
def test_paths_that_are_no_files(source, message):
    with pytest.raises(AudioError) as caught:
        open_file(source)
    assert str(caught.value) == message


def test_forbidden_file(monkeypatch, path):
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(AudioError, match="may not be read; check its permissions$"):
        open_file(path)


def test_full_disk_while_copying(monkeypatch):
    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", fail)
    with pytest.raises(AudioError, match="^Pipe object: cannot be read: No space left on device$"):
        open_file(Pipe(CONTENT))


def test_text_files_are_refused(path):
    with open(path, encoding="latin-1") as file, pytest.raises(TypeError, match="binary mode"):
        open_file(file)


@pytest.mark.parametrize("source", [None, 5, [1.0, 2.0], object()])
def test_other_things_are_refused(source):
    with pytest.raises(TypeError, match=f"got {type(source).__name__}$"):
        open_file(source)


def test_describe(path):
    with open(path, "rb") as file:
        assert describe(file) == str(path)
    assert describe(path) == str(path)
    assert describe("-") == "standard input"
    assert describe(b"abc") == "3 bytes"
    assert describe(io.BytesIO()) == "BytesIO object"
    assert describe(np.zeros((3, 2))) == "array (3, 2)"


def test_steady_file_answers_impossible_seeks():
    file = SteadyFile(io.BytesIO(CONTENT))

    assert file.seek(-5) == -1
    assert file.seek(10) == file.tell() == 10
    assert file.read(2) == CONTENT[10:12]
    assert not hasattr(file, "name")
