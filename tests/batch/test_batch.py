from __future__ import annotations

import json
import os
import signal
import time

import fsspec
import numpy as np
import pytest

from tests.batch.conftest import start_batch, texts
from voxmlx.pipeline import load


def test_outputs_equal_single_transcriptions(cli, model, archive, tmp_path):
    folder = tmp_path / "out"
    outcome = cli("batch", archive / "sub" / "*.wav", "-o", folder, "-m", model)
    assert (outcome.code, outcome.err) == (0, "12 of 12 recordings done\n")
    pipeline = load(model)
    for name, text in list(texts(folder).items())[:4]:
        recording = archive / "sub" / name.replace(".txt", ".wav")
        assert text == pipeline.generate(recording, on_eos="restart").text + "\n"


def test_every_format_and_option(cli, model, archive, tmp_path):
    folder = tmp_path / "out"
    cli("batch", archive / "0000.wav", "-o", folder, "-m", model, "-f", "all", "-d", "80")
    found = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    assert found == [f"0000.{suffix}" for suffix in ("json", "srt", "tsv", "txt", "vtt")]
    assert json.loads((folder / "0000.json").read_text())["delay_ms"] == 80


def test_second_run_does_nothing_and_needs_no_model(cli, model, archive, tmp_path):
    folder = tmp_path / "out"
    first = cli("batch", archive / "000*.wav", "-o", folder, "-m", model)
    assert first.code == 0
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    (model / "params.json").rename(model / "hidden")
    try:
        again = cli("batch", archive / "000*.wav", "-o", folder, "-m", model)
    finally:
        (model / "hidden").rename(model / "params.json")
    assert (again.code, again.err) == (0, "5 of 5 recordings done\n")
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == times


def test_bad_recordings_are_set_aside(cli, model, archive, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.wav", "b.wav"):
        (tmp_path / "in" / name).write_bytes((archive / "0000.wav").read_bytes())
    (tmp_path / "in" / "bad.wav").write_bytes(b"no")
    folder = tmp_path / "out"
    outcome = cli("batch", tmp_path / "in", "-o", folder, "-m", model)
    assert outcome.code == 1
    assert "bad.wav: not a recording" in outcome.err
    assert "2 of 3 recordings done" in outcome.err
    (line,) = (folder / "errors.jsonl").read_text().splitlines()
    assert json.loads(line)["input"].endswith("bad.wav")
    again = cli("batch", tmp_path / "in", "-o", folder, "-m", model)
    assert (again.code, "not a recording" in again.err) == (1, False)
    (tmp_path / "in" / "bad.wav").write_bytes((archive / "0000.wav").read_bytes())
    mended = cli("batch", tmp_path / "in", "-o", folder, "-m", model, "--retry-errors")
    assert mended.code == 0
    assert not (folder / "errors.jsonl").exists()


def test_urls_in_and_out(cli, model, archive):
    files = fsspec.filesystem("memory")
    files.pipe_file("/batch-in/x/a.wav", (archive / "0000.wav").read_bytes())
    files.pipe_file("/batch-in/missing.wav", b"")
    outcome = cli("batch", "memory://batch-in", "-o", "memory://batch-out", "-m", model)
    assert outcome.code == 1
    assert "1 of 2 recordings done" in outcome.err
    assert files.cat_file("/batch-out/x/a.txt")
    assert b"missing.wav" in files.cat_file("/batch-out/errors.jsonl")


def test_other_settings_are_refused(cli, model, archive, tmp_path):
    cli("batch", archive / "0000.wav", "-o", tmp_path, "-m", model)
    outcome = cli("batch", archive / "0000.wav", "-o", tmp_path, "-m", model, "-d", "80")
    assert outcome.code == 1
    assert "made with transcription_delay_ms=None, not 80; take another folder" in outcome.err


def test_killed_runs_end_complete_and_do_nothing_twice(cli, model, archive, tmp_path):
    arguments = (archive, "-m", model, "--batch-size", "4")
    whole, folder = tmp_path / "whole", tmp_path / "out"
    assert cli("batch", *arguments, "-o", whole).code == 0
    rng = np.random.default_rng(0)
    born: dict[str, int] = {}
    n_killed = 0
    while n_killed < 2:
        process = start_batch(*arguments, "-o", folder, cache=tmp_path)
        n_before = len(texts(folder)) if folder.exists() else 0
        wanted = n_before + int(rng.integers(1, 6))
        while process.poll() is None and (not folder.exists() or len(texts(folder)) < wanted):
            time.sleep(0.002)
        process.kill()
        process.wait()
        process.stderr.close()
        assert process.returncode == -signal.SIGKILL
        n_killed += 1
        for path in folder.rglob("*.txt"):
            changed = path.stat().st_mtime_ns
            assert born.setdefault(str(path), changed) == changed
            assert path.read_text() == (whole / path.relative_to(folder)).read_text()
    assert 0 < len(born) < 24
    assert cli("batch", *arguments, "-o", folder).code == 0
    assert texts(folder) == texts(whole)
    assert all(os.stat(path).st_mtime_ns == time_ns for path, time_ns in born.items())


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["x.wav"], "--output-dir"),
        (["none/*.wav", "-o", "out"], "none/*.wav: no recordings there"),
    ],
)
def test_mistakes_are_named(cli, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = cli("batch", *arguments)
    assert outcome.code in (1, 2)
    assert message in outcome.err
