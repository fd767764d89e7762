"""Fixtures of the server's tests; all of them are skipped without the extra ``server``."""

from __future__ import annotations

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from tests.engine.models import noise, write_model
from tests.server.running import running
from voxmlx.pipeline import load


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def pipeline(model_folder):
    return load(model_folder)


@pytest.fixture(scope="session")
def server(model_folder):
    with running(model_folder) as server:
        yield server


@pytest.fixture(scope="session")
def speech():
    """Audio of which the random model makes some text: multiples of 1/32767, 16 kHz."""
    return (noise(2, seed=11) * 32767).astype("<i2").astype("float32") / 32767
