from __future__ import annotations

import json

import pytest
import soundfile

from tests.cli.conftest import RATE, samples
from voxmlx.pipeline import load


@pytest.fixture(scope="module")
def data(tmp_path_factory, model):
    """Four recordings; the model's own text is the reference of the first two."""
    folder = tmp_path_factory.mktemp("data")
    pipeline = load(model)
    lines = []
    for i in range(4):
        path = folder / f"{i}.wav"
        soundfile.write(path, samples(0.4 + 0.2 * i), RATE)
        text = pipeline.generate(path).text if i < 2 else "hello world"
        lines.append(f"{path.name}\t{text}\n")
    (folder / "text.tsv").write_text("".join(lines))
    return folder


def test_rates_and_reports(cli, model, data, tmp_path):
    files = [tmp_path / name for name in ("r.json", "r.md", "r.html")]
    outcome = cli(
        *("eval", data, "-m", model, "--delays", "80,480", "--normalizer", "none"),
        *("--json", files[0], "--markdown", files[1], "--html", files[2], "--name", "small"),
    )
    assert (outcome.code, outcome.err) == (0, "")
    assert [line.split(" | ")[:3] for line in outcome.out.splitlines()[2:]] == [
        ["| 80", "all", "4"],
        ["| 480", "all", "4"],
    ]
    values = json.loads(files[0].read_text())
    own = [r for r in values["records"] if r["delay_ms"] == 480 and r["id"] in ("0.wav", "1.wav")]
    assert [r["hypothesis"] for r in own] == [r["reference"] for r in own]
    assert (values["model"], values["bits"]) == ("small", 32)
    assert files[1].read_text().startswith("# small on ")
    assert files[2].read_text().startswith("<!doctype html>")


def test_batches_give_what_single_recordings_give(cli, model, data):
    tables = [cli("eval", data, "-m", model, "--batch-size", n).out for n in (1, 3)]
    cells = [[line.split(" | ")[:9] for line in table.splitlines()] for table in tables]
    assert cells[0] == cells[1]


def test_live_measures_latency(cli, model, data):
    outcome = cli("eval", data, "-m", model, "--live", "--limit", "1")
    assert outcome.code == 0
    assert "latency s" in outcome.out.splitlines()[0]


def test_saved_results_are_compared_and_joined(cli, model, data, tmp_path):
    saved = tmp_path / "a.json"
    cli("eval", data, "-m", model, "--json", saved, "--name", "one")
    outcome = cli("eval", "--compare", saved, saved)
    assert (outcome.code, outcome.out.splitlines()[-1].split(" | ")[-1]) == (0, "no difference |")
    joined = cli("eval", "--with", saved, "--with", saved, "--html", tmp_path / "both.html")
    assert joined.out.splitlines()[0] == "| delay ms | one | one |"


def test_bad_recording_is_reported_and_the_rest_measured(cli, model, data, tmp_path):
    (data / "bad.wav").write_bytes(b"no")
    table = data / "bad.jsonl"
    rows = [{"audio": name, "text": "hello"} for name in ("0.wav", "bad.wav")]
    table.write_text("\n".join(map(json.dumps, rows)))
    outcome = cli("eval", table, "-m", model)
    assert outcome.code == 1
    assert "| all | 1 |" in outcome.out
    assert "bad.wav: not a recording" in outcome.err


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "Missing argument 'FOLDER|TABLE'"),
        (["x", "--delays", "80,90"], "'90' is not one of 80, 160"),
        (["none.tsv"], "none.tsv: no such file or folder"),
        (["--compare", "a.json", "b.json"], "a.json: cannot be read"),
    ],
)
def test_mistakes_are_named(cli, arguments, message):
    outcome = cli("eval", *arguments)
    assert outcome.code in (1, 2)
    assert message in outcome.err
