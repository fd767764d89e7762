"""Every example of the documentation and the README: Python is run, command lines are parsed."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import typer

from tests.cli.conftest import RATE, samples, talking_weights
from tests.tiny_checkpoints import write_folder
from voxmlx.cli.main import app

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(page.read_text()) if kind == language]


def commands(page: Path) -> list[list[str]]:
    """Command lines of the two programs, without comments, redirections and what is piped in."""
    found = []
    for text in blocks(page, "bash"):
        for line in text.replace("\\\n", " ").splitlines():
            for part in re.split(r"\s[|]\s|&&", line.split("  #")[0].split(" #")[0]):
                words = shlex.split(part.split(" > ")[0])
                if words and Path(words[0]).name in ("voxmlx", "voxmlx-convert"):
                    found.append(words)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What the examples find where they run."""
    folder = tmp_path_factory.mktemp("docs")
    write_folder(folder / "tiny", "native", talking_weights())
    (folder / "recordings").mkdir()
    for path in (folder / "talk.wav", folder / "recordings" / "a.wav"):
        soundfile.write(path, samples(0.3), RATE)
    (folder / "recordings" / "text.tsv").write_text("a.wav\thello\n")
    return folder


@pytest.mark.parametrize("page", PAGES[:-1], ids=lambda page: page.name)
def test_python_examples_run(page, folder, monkeypatch):
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for text in blocks(page, "python"):
            exec(compile(text, str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_examples_compile(page):
    for text in blocks(page, "python"):
        compile(text, str(page), "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_command_lines_are_understood(page):
    converter = importlib.import_module("voxmlx_convert.cli").app
    for words in commands(page):
        program, *arguments = words
        if Path(program).name == "voxmlx-convert":
            command = typer.main.get_command(converter)
        else:
            command = typer.main.get_command(app).get_command(None, arguments.pop(0))
            assert command is not None, words
        if "--help" not in arguments:
            command.make_context(words[0], arguments)


def test_examples_are_there():
    assert sum(len(commands(page)) for page in PAGES) > 40
    assert sum(len(blocks(page, "python")) for page in PAGES) > 8


def test_command_reference_is_fresh():
    made = subprocess.run(
        [sys.executable, "-c", "import command_docs; print(command_docs.page(), end='')"],
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert made == (ROOT / "docs" / "commands.md").read_text(), (
        "docs/commands.md is stale; run python scripts/command_docs.py"
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_example_installs_the_earlier_package_of_this_name(page):
    for text in blocks(page, "bash"):
        for name in re.findall(r"pip install .*?(voxmlx\S*)", text):
            assert ">=0.1" in name, f"{name} may be 0.0.2, by somebody else"
