from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import time

import numpy as np
import pytest
import soundfile

from tests.cli.conftest import RATE, program_arguments, program_environment, samples
from voxmlx.cli.text_display import split_after
from voxmlx.cli.transcribe import output_names
from voxmlx.pipeline import load


@pytest.fixture(scope="module")
def expected(model, recording) -> str:
    return load(model).generate(recording).text


def test_text_goes_to_standard_output_alone(cli, model, recording, expected):
    outcome = cli("transcribe", recording, "--model", model)
    assert (outcome.code, outcome.out, outcome.err) == (0, expected + "\n", "")
    assert len(expected) > 5


def test_options_reach_the_model(cli, model, recording):
    outcome = cli(
        "transcribe", recording, "-m", model, "-d", 80, "--dtype", "float16", "-f", "json"
    )
    values = json.loads(outcome.out)
    assert (outcome.code, values["delay_ms"], values["duration"]) == (0, 80, 1.5)
    drawn = cli("transcribe", recording, "-m", model, "-t", 50, "-f", "json").out
    assert json.loads(drawn)["text"] != values["text"]


def test_model_may_come_from_the_environment(cli, model, recording, expected, monkeypatch):
    monkeypatch.setenv("VOXMLX_MODEL", str(model))
    assert cli("transcribe", recording).out == expected + "\n"


def test_one_failing_file_is_reported_and_the_rest_done(cli, model, recording, expected):
    outcome = cli("transcribe", recording, "missing.wav", recording, "--model", model)
    assert outcome.code == 1
    assert outcome.err == "error: missing.wav: no such file\nerror: 1 of 3 files failed\n"
    heads = [f"==> {recording} <==\n{expected}\n", "==> missing.wav <==\n"]
    assert outcome.out == "\n".join([*heads, heads[0]])


def test_several_files_at_a_time(cli, model, recording, expected, tmp_path):
    files = [recording, "missing.wav", recording]
    alone = cli("transcribe", *files, "--model", model)
    outcome = cli("transcribe", *files, "--model", model, "--batch-size", 3)
    assert (outcome.code, outcome.out, outcome.err) == (alone.code, alone.out, alone.err)
    assert outcome.out.count(expected) == 2

    outcome = cli("transcribe", *files, "-m", model, "--batch-size", 2, "-o", tmp_path / "out")
    assert outcome.code == 1
    texts = [path.read_text() for path in sorted((tmp_path / "out").iterdir())]
    assert [text.split() for text in texts] == [expected.split()] * 2


def test_files_go_to_a_new_folder(cli, model, recording, expected, tmp_path):
    folder = tmp_path / "new" / "out"
    outcome = cli("transcribe", recording, "-m", model, "-o", folder, "-f", "all")
    assert outcome.code == 0
    names = [f"talk.{suffix}" for suffix in ("txt", "srt", "vtt", "tsv", "json")]
    assert outcome.out.splitlines() == [str(folder / name) for name in names]
    assert sorted(os.listdir(folder)) == sorted(names)
    assert (folder / "talk.txt").read_text() == expected + "\n"
    assert json.loads((folder / "talk.json").read_text())["text"] == expected


@pytest.mark.parametrize("format, start", [("srt", "1\n00:00:0"), ("vtt", "WEBVTT\n\n00:0")])
def test_subtitles_to_standard_output(cli, model, recording, format, start):
    outcome = cli("transcribe", recording, "-m", model, "-f", format)
    assert outcome.code == 0
    assert outcome.out.startswith(start)


def test_any_name_content_rate_and_channels(cli, model, tmp_path):
    odd = tmp_path / "mit Leerzeichen ü 今.mp3"
    channels = np.repeat(np.repeat(samples(0.3), 12)[:, None], 8, axis=1)
    soundfile.write(odd, channels, 12 * RATE, format="WAV", subtype="DOUBLE")
    one_sample = tmp_path / "one.wav"
    soundfile.write(one_sample, np.zeros(1), RATE)
    outcome = cli("transcribe", odd, one_sample, "-m", model, "-o", tmp_path / "out")
    assert (outcome.code, outcome.err) == (0, "")
    assert sorted(os.listdir(tmp_path / "out")) == ["mit Leerzeichen ü 今.txt", "one.txt"]


def test_equal_names_get_different_outputs():
    assert output_names(["a/x.wav", "y.wav", "-"]) == ["x", "y", "stdin"]
    assert output_names(["x.wav", "x.mp3"]) == ["x.wav", "x.mp3"]
    assert output_names(["a/x.wav", "b/x.wav", "c/x.wav"]) == ["x.wav", "x.wav-2", "x.wav-3"]


def test_model_is_not_loaded_for_files_that_cannot_be_read(cli, tmp_path):
    outcome = cli("transcribe", "missing.wav", "-m", tmp_path / "no model")
    assert outcome.err == "error: missing.wav: no such file\n"


def test_standard_input(program, model, recording, expected):
    data = recording.read_bytes()
    outcome = program("transcribe", "-", "-m", model, stdin=None, input=data)
    assert (outcome.code, outcome.out, outcome.err) == (0, expected + "\n", "")


def test_closed_pipe_ends_quietly(model, tmp_path):
    path = tmp_path / "long.wav"
    soundfile.write(path, samples(30), RATE)
    process = subprocess.Popen(
        program_arguments("transcribe", path, "-m", model),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=program_environment(tmp_path),
    )
    process.stdout.read(1)
    process.stdout.close()
    assert process.wait(timeout=60) == 1
    assert process.stderr.read() == b""
    process.stderr.close()


def test_interrupt_leaves_no_file_and_no_traceback(model, tmp_path):
    path, out = tmp_path / "long.wav", tmp_path / "out"
    soundfile.write(path, samples(600), RATE)
    process = subprocess.Popen(
        program_arguments("transcribe", path, "-m", model, "-o", out),
        stderr=subprocess.PIPE,
        env=program_environment(tmp_path),
    )
    while not out.exists():
        time.sleep(0.02)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert process.stderr.read() == b"error: interrupted\n"
    process.stderr.close()
    assert os.listdir(out) == []


def on_a_terminal(
    arguments: list[str], environment: dict[str, str], stdout: bool
) -> tuple[str, str]:
    """Run a program with standard error, and perhaps standard output, on a terminal."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        arguments,
        env=environment,
        stdin=slave,
        stdout=slave if stdout else subprocess.PIPE,
        stderr=slave,
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # how Linux reports the end of a terminal
            break
        if not part:
            break
        shown += part
    out = b""
    if process.stdout is not None:
        out = process.stdout.read()
        process.stdout.close()
    os.close(master)
    assert process.wait(timeout=60) == 0, shown
    return shown.decode(), out.decode()


def plain(shown: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)


def test_progress_on_a_terminal_and_text_in_the_pipe(model, recording, expected, tmp_path):
    arguments = program_arguments("transcribe", recording, "-m", model)
    shown, out = on_a_terminal(arguments, program_environment(tmp_path), stdout=False)
    assert out == expected + "\n"
    assert "talk.wav" in plain(shown) and "━" in shown
    assert expected[:10] not in plain(shown)


def test_text_stands_above_the_progress_on_one_terminal(model, recording, expected, tmp_path):
    arguments = program_arguments("transcribe", recording, "-m", model)
    shown, _ = on_a_terminal(arguments, program_environment(tmp_path), stdout=True)
    assert "━" in shown
    assert "".join(expected.split()) in "".join(plain(shown).split())


def test_download_is_offered_on_a_terminal(tmp_path, recording):
    master, slave = pty.openpty()
    process = subprocess.Popen(
        program_arguments("transcribe", recording),
        env=program_environment(tmp_path),
        stdin=slave,
        stdout=subprocess.DEVNULL,
        stderr=slave,
    )
    os.close(slave)
    shown = b""
    while b"?" not in shown:
        shown += os.read(master, 65536)
    os.write(master, b"n\n")
    assert process.wait(timeout=60) == 2
    shown += os.read(master, 65536)
    os.close(master)
    assert "No model is on this machine. Download mlx-community/" in plain(shown.decode())
    assert "--model tiny is small and built in" in plain(shown.decode())


def test_split_after_ignores_whitespace():
    assert split_after(" One  two. Three", "One two.") == (" One  two.", " Three")
    assert split_after("One", "One two") == ("One", "")
    assert split_after("abc", "") == ("", "abc")
