"""Recordings of different lengths, and the command as a process that can be killed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import soundfile

from tests.cli.conftest import (
    RATE,
    cli,
    model,
    program_arguments,
    program_environment,
    samples,
)

__all__ = ["cli", "model"]


def write_recordings(folder: Path, n: int, shortest_s: float = 0.1) -> None:
    """Put ``n`` recordings of ten lengths into a folder and a folder in it."""
    (folder / "sub").mkdir(parents=True)
    for i in range(n):
        path = folder / ("sub" if i % 2 else "") / f"{i:04d}.wav"
        soundfile.write(path, samples(shortest_s + 0.04 * (i % 10)), RATE)


@pytest.fixture(scope="session")
def archive(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("archive") / "in"
    write_recordings(folder, 24)
    return folder


def start_batch(*arguments: str | Path, cache: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        program_arguments("batch", *arguments),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=program_environment(cache),
    )


def texts(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*.txt")}
