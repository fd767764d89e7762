from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.conftest import ROOT
from voxmlx.cli.common import Format
from voxmlx.cli.main import COMMANDS
from voxmlx.config import SUPPORTED_DELAYS_MS
from voxmlx.version import __version__
from voxmlx.writers import FORMATS


def test_version(cli):
    outcome = cli("--version")
    assert (outcome.code, outcome.out) == (0, f"voxmlx {__version__}\n")


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_every_command(cli, flag):
    outcome = cli(flag)
    assert outcome.code == 0
    assert all(name in outcome.out for name in COMMANDS)
    assert "voxmlx transcribe talk.mp3" in outcome.out


def test_no_command_points_to_the_help(cli):
    outcome = cli()
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == "error: Missing command; see 'voxmlx --help'\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_has_examples_on_lines_of_their_own(cli, name):
    outcome = cli(name, "--help")
    assert outcome.code == 0
    lines = [line.strip() for line in outcome.out.splitlines()]
    examples = lines[lines.index("Examples:") + 1 :]
    assert any(line.startswith(f"voxmlx {name}") for line in examples)


def test_help_imports_neither_mlx_nor_other_heavy_packages():
    code = (
        "import sys; from voxmlx.cli.main import run; run(['--help']); "
        "heavy = {'mlx', 'numpy', 'huggingface_hub', 'tiktoken', 'av', 'soundfile', 'starlette'}; "
        "sys.exit(repr(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_formats_are_those_of_the_writers():
    assert [each.value for each in Format] == [*FORMATS, "all"]


def test_delays_are_named_in_the_help(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert "80 to 1200 by 80, or 2400" in cli("transcribe", "--help").out
    assert SUPPORTED_DELAYS_MS == (*range(80, 1201, 80), 2400)
