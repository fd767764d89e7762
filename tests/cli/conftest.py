"""A model that always writes text, a recording, and a way to run command lines."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.tiny import N_SPECIAL
from tests.tiny_checkpoints import internal_weights, write_folder
from voxmlx.cli.main import run

ROOT = Path(__file__).parents[2]
RATE = 16000


@dataclass(frozen=True)
class Outcome:
    """What a command line left behind."""

    code: int
    out: str
    err: str


def talking_weights() -> dict[str, np.ndarray]:
    """Random weights that choose neither control tokens nor bytes: every position writes text."""
    weights = internal_weights()
    weights["decoder.embed_tokens.weight"][: N_SPECIAL + 256] = 0.0
    return weights


def samples(seconds: float = 1.5) -> np.ndarray:
    """A falling tone with a little noise, (n,) float32."""
    rng = np.random.default_rng(0)
    time_s = np.arange(int(seconds * RATE)) / RATE
    tone = 0.3 * np.sin(2 * np.pi * (300 - 40 * time_s) * time_s)
    return (tone + 0.01 * rng.standard_normal(len(time_s))).astype(np.float32)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("model"), "native", talking_weights())


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audio") / "talk.wav"
    soundfile.write(path, samples(), RATE)
    return path


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run a command line inside this process."""

    def call(*arguments: str | Path) -> Outcome:
        code = run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Outcome(code, out, err)

    return call


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., Outcome]:
    """Run the program as a process of its own, without a connection and with an empty cache."""

    def call(*arguments: str | Path, **options) -> Outcome:
        done = subprocess.run(
            program_arguments(*arguments),
            **({"stdin": subprocess.DEVNULL} | {"stdout": subprocess.PIPE} | options),
            stderr=subprocess.PIPE,
            env=program_environment(tmp_path),
            timeout=120,
        )
        return Outcome(done.returncode, (done.stdout or b"").decode(), done.stderr.decode())

    return call


def program_arguments(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "voxmlx.cli.main", *map(str, arguments)]


def program_environment(cache: Path) -> dict[str, str]:
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        "HF_HOME": str(cache / "hub"),
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "100",
        "TERM": "xterm",
    }
