"""What is compiled once is kept, and what cannot be compiled says why."""

from __future__ import annotations

import mlx.core as mx
import pytest

from voxmlx.kernels import compiler

cuda = pytest.mark.skipif(not mx.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture
def compiled(monkeypatch, tmp_path):
    """The sources that were compiled, for a device of 9.0 and a compiler that only notes them."""
    sources = []

    def note(source, target):
        sources.append((source, target))
        return f"code {len(sources)}".encode()

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiler, "compile_for", note)
    monkeypatch.setattr(compiler, "_version", lambda: "13.0")
    device = {"compute_capability_major": 9, "compute_capability_minor": 0}
    monkeypatch.setattr(mx, "device_info", lambda: device)
    return sources


def test_compiles_a_text_once(compiled, tmp_path):
    assert compiler.compile_cuda("one") == compiler.compile_cuda("one") == b"code 1"
    assert compiler.compile_cuda("other") == b"code 2"
    assert compiled == [
        (compiler.PREFIX + "one", "sm_90"),
        (compiler.PREFIX + "other", "sm_90"),
    ]
    assert len(list((tmp_path / "voxmlx" / "kernels").iterdir())) == 2


def test_another_compiler_compiles_anew(compiled, monkeypatch):
    compiler.compile_cuda("one")
    monkeypatch.setattr(compiler, "_version", lambda: "13.1")

    assert compiler.compile_cuda("one") == b"code 2"


def test_a_folder_that_takes_no_file(compiled, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))

    assert compiler.compile_cuda("one") == b"code 1"


def test_a_write_that_fails_leaves_nothing(compiled, monkeypatch, tmp_path):
    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(compiler.os, "replace", full)

    assert compiler.compile_cuda("one") == b"code 1"
    assert not list((tmp_path / "voxmlx" / "kernels").iterdir())


def test_without_a_compiler(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(compiler.ctypes, "CDLL", missing)

    with pytest.raises(RuntimeError, match=r"no CUDA compiler: expected one of libnvrtc\.so\.13"):
        compiler._nvrtc.__wrapped__()


def test_what_is_missing(monkeypatch):
    monkeypatch.setattr(compiler, "_nvrtc", lambda: None)
    monkeypatch.setattr(compiler, "_include_folders", lambda: ("/usr/include",))
    assert compiler.lacks() is None

    monkeypatch.setattr(compiler, "_include_folders", lambda: ())
    assert "CUDA_HOME" in str(compiler.lacks())


@cuda
def test_says_what_does_not_compile():
    with pytest.raises(RuntimeError, match=r"does not compile for sm_\d+: .*error"):
        compiler.compile_cuda("this is no CUDA")
