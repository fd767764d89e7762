"""The command: what it refuses before it loads anything, and what it tells."""

from __future__ import annotations

import importlib.util
import json
import logging

import pytest

from voxmlx.cli.main import run
from voxmlx.server.logs import JsonFormatter, PlainFormatter, event


@pytest.fixture(autouse=True)
def quiet_afterwards():
    yield
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler.formatter, (JsonFormatter, PlainFormatter)):
            root.removeHandler(handler)
    for name in ("voxmlx", "uvicorn"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def test_other_machines_need_a_key(capsys, monkeypatch):
    monkeypatch.delenv("VOXMLX_API_KEY", raising=False)
    assert run(["serve", "--host", "0.0.0.0", "--model", "tiny"]) == 2
    assert "API key" in capsys.readouterr().err


@pytest.mark.parametrize(
    "option", [["--max-sessions", "129"], ["--port", "70000"], ["--delay", "81"]]
)
def test_values_are_checked(capsys, option):
    assert run(["serve", *option]) == 2
    assert option[0] in capsys.readouterr().err


def test_missing_extra_is_named(capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name)
    )
    assert run(["serve", "--model", "tiny"]) == 1
    assert 'pip install "voxmlx[server]>=' in capsys.readouterr().err


def test_missing_model_is_told(capsys, tmp_path):
    assert run(["serve", "--port", "0", "--model", str(tmp_path / "none")]) == 1
    assert "none" in capsys.readouterr().err


def test_more_cannot_be_reserved_than_allowed(capsys):
    options = ["--max-sessions", "16", "--max-memory", "0.01", "--reserve"]
    assert run(["serve", "--model", "tiny", "--port", "0", *options]) == 1
    assert "16 live turns need" in capsys.readouterr().err


@pytest.mark.parametrize("formatter", [JsonFormatter(), PlainFormatter()])
def test_a_log_entry_is_one_line_whatever_a_client_sends(formatter):
    record = None

    class Handler(logging.Handler):
        def emit(self, entry):
            nonlocal record
            record = entry

    logger = logging.Logger("test")
    logger.addHandler(Handler())
    event(logger, "connection", client='evil\n"level": "error"', reason="\x1b[31m")

    line = formatter.format(record)

    assert "\n" not in line and "\x1b" not in line
    if isinstance(formatter, JsonFormatter):
        assert json.loads(line)["client"].startswith("evil")
