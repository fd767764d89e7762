"""``voxmlx live`` with a made-up microphone, real pipes and real signals."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

from tests.cli.conftest import RATE, program_arguments, program_environment, samples
from tests.portaudio import install
from voxmlx.cli import live
from voxmlx.pipeline import load
from voxmlx.streaming.iterate import iterate

CUE_TIME = re.compile(r"\d\d:\d\d:\d\d,\d{3} --> \d\d:\d\d:\d\d,\d{3}")


@pytest.fixture(scope="module")
def expected(model):
    """What a session says of the recording."""
    session = load(model).stream()
    for _ in iterate(session, [pcm_round(samples())]):
        pass
    return session.result()


def pcm_round(x: np.ndarray) -> np.ndarray:
    return (np.round(x * 32767) / 32768).astype(np.float32)


def pcm(x: np.ndarray) -> bytes:
    return np.round(x * 32767).astype("<i2").tobytes()


def start(tmp_path, *arguments, **options) -> subprocess.Popen:
    return subprocess.Popen(
        program_arguments(*arguments),
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        env=program_environment(tmp_path),
    )


def check_srt(text: str) -> None:
    blocks = text.split("\n\n")
    assert blocks.pop() == ""
    for number, block in enumerate(blocks, start=1):
        lines = block.split("\n")
        assert lines[0] == str(number)
        assert CUE_TIME.fullmatch(lines[1])
        assert 1 <= len(lines[2:]) <= 2


def test_raw_pcm_through_a_pipe(program, model, expected):
    outcome = program("live", "-", "--model", model, stdin=None, input=pcm(samples()))

    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == expected.text + "\n"


def test_wav_through_a_pipe_with_all_outputs(program, model, recording, expected, tmp_path):
    srt, saved = tmp_path / "talk.srt", tmp_path / "saved.wav"
    with recording.open("rb") as file:
        outcome = program("live", "-", "--model", model, "-o", srt, "--save", saved, stdin=file)

    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == expected.text + "\n"
    check_srt(srt.read_text())
    heard, rate = soundfile.read(saved, dtype="float32")
    original, _ = soundfile.read(recording, dtype="float32")
    assert rate == RATE
    assert np.abs(heard - original).max() < 1e-4


def test_raw_pcm_of_another_kind(program, model):
    x = np.repeat(samples(), 3)
    data = np.stack([x, x], axis=1).astype("<f4").tobytes()
    outcome = program(
        *("live", "-", "--model", model, "--rate", 48000, "--channels", 2, "--dtype", "f32le"),
        stdin=None,
        input=data,
    )

    assert outcome.code == 0
    assert outcome.out.strip()


def test_text_comes_before_the_pipe_ends(tmp_path, model):
    process = start(tmp_path, "live", "-", "--model", model, stdin=subprocess.PIPE)
    process.stdin.write(pcm(samples()))
    process.stdin.flush()
    first = process.stdout.read(1)
    process.stdin.close()
    rest = process.stdout.read()
    process.stderr.close()
    process.stdout.close()

    assert first and rest
    assert process.wait(30) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_settles_and_saves(tmp_path, model, expected, number):
    srt, saved = tmp_path / "talk.srt", tmp_path / "saved.wav"
    process = start(
        *(tmp_path, "live", "-", "--model", model, "-o", srt, "--save", saved),
        stdin=subprocess.PIPE,
    )
    process.stdin.write(pcm(samples()))
    process.stdin.flush()
    head = process.stdout.read(1)
    process.send_signal(number)
    rest = process.stdout.read()
    errors = process.stderr.read()
    code = process.wait(30)
    for pipe in (process.stdin, process.stdout, process.stderr):
        pipe.close()

    assert (code, errors) == (0, b"")
    assert (head + rest).decode() == expected.text + "\n"
    check_srt(srt.read_text())
    assert srt.read_text()
    assert soundfile.info(saved).frames == len(samples())


def test_killed_program_leaves_valid_files(tmp_path, model):
    srt, saved = tmp_path / "talk.srt", tmp_path / "saved.wav"
    process = start(
        *(tmp_path, "live", "-", "--model", model, "-o", srt, "--save", saved),
        stdin=subprocess.PIPE,
    )
    process.stdin.write(pcm(np.tile(samples(), 8)))
    process.stdin.flush()
    process.stdout.read(40)
    process.kill()
    process.wait(30)
    for pipe in (process.stdin, process.stdout, process.stderr):
        pipe.close()

    check_srt(srt.read_text())
    assert soundfile.info(saved).frames > 0


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("a.txt", lambda text, result: "".join(text.split()) == "".join(result.text.split())),
        ("a.tsv", lambda text, result: text.startswith("start\tend\ttext\n") and "\t" in text),
        ("a.vtt", lambda text, result: text.startswith("WEBVTT\n\n") and " --> " in text),
        ("a.json", lambda text, result: json.loads(text)["text"] == result.text),
    ],
)
def test_formats_by_name(cli, monkeypatch, model, expected, tmp_path, name, check):
    path = tmp_path / name
    install(monkeypatch, sound=pcm_round(samples())).unplug = True
    outcome = cli("live", "--model", model, "-o", path)

    assert outcome.code == 0
    assert check(path.read_text(), expected)


def test_subtitles_to_standard_output(cli, monkeypatch, model):
    install(monkeypatch, sound=samples()).unplug = True
    outcome = cli("live", "--model", model, "--format", "srt")

    assert outcome.code == 0
    assert outcome.out
    check_srt(outcome.out)


def test_realtime_reports_latency(cli, model, recording, expected):
    started = time.monotonic()
    outcome = cli("live", recording, "--realtime", "--model", model)

    assert outcome.code == 0
    assert time.monotonic() - started > 1.5
    assert outcome.out == expected.text + "\n"
    assert re.fullmatch(
        r"delay 480 ms, largest lag \d\.\d\d s; text after the end of each of \d+ words: "
        r"mean -?\d\.\d\d s, p50 .*, p90 .*, p99 .*, max \d\.\d\d\n",
        outcome.err,
    )


def test_microphone_until_interrupted(cli, monkeypatch, model, tmp_path, expected):
    fake = install(monkeypatch, sound=pcm_round(samples()))
    fake.unplug = True
    saved = tmp_path / "saved.wav"
    outcome = cli("live", "--model", model, "--device", "built", "--save", saved)

    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == expected.text + "\n"
    assert soundfile.info(saved).frames == len(samples())
    assert fake.streams[0].closed


def test_interrupt_stops_the_microphone(cli, monkeypatch, model):
    fake = install(monkeypatch, sound=samples(), speed=5.0)
    feed = live._Live._hear
    n_heard = [0]

    def interrupting(self, piece):
        feed(self, piece)
        n_heard[0] += len(piece)
        if n_heard[0] > RATE:
            signal.raise_signal(signal.SIGINT)
            n_heard[0] = -(10**9)

    monkeypatch.setattr(live._Live, "_hear", interrupting)
    outcome = cli("live", "--model", model)

    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.strip()
    assert fake.streams[0].closed


def test_lost_sound_is_reported(cli, monkeypatch, model, caplog):
    from voxmlx.audio import microphone

    monkeypatch.setattr(microphone, "QUEUE_S", 0.02)
    fake = install(monkeypatch, sound=samples(), speed=50.0)
    fake.unplug = True
    fake.overflows = 2
    outcome = cli("live", "--model", model)

    assert outcome.code == 0
    messages = [record.message for record in caplog.records]
    assert any(re.fullmatch(r"\d\.\d s of sound were lost: .*", text) for text in messages)
    assert "the sound system lost sound 2 times" in messages


def test_pure_silence_is_reported(cli, monkeypatch, model, caplog):
    fake = install(monkeypatch, sound=np.zeros(4 * RATE, np.float32))
    fake.unplug = True
    cli("live", "--model", model)

    assert [r.message[:40] for r in caplog.records] == ["the microphone gives pure silence; it ma"]


def test_failing_microphone_keeps_the_text(cli, monkeypatch, model):
    from voxmlx.audio import microphone

    fake = install(monkeypatch, sound=samples(), speed=20.0)
    open_stream = fake.InputStream
    fake.InputStream = lambda **s: open_stream(**s | {"finished_callback": lambda: None})
    fake.unplug = True
    monkeypatch.setattr(microphone, "STALL_S", 0.3)
    outcome = cli("live", "--model", model)

    assert outcome.code == 1
    assert outcome.out.strip()
    assert "gave nothing for 0.3 s; plug it in again" in outcome.err


def test_list_devices(cli, monkeypatch):
    install(monkeypatch)
    outcome = cli("live", "--list-devices")

    assert outcome.code == 0
    assert outcome.out.splitlines()[0] == "*   1  Built-in Mic  (1 channels, 44100 Hz)"
    assert len(outcome.out.splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["talk.wav"], "a FILE needs --realtime; 'voxmlx transcribe' is for recordings"),
        (["--realtime"], "--realtime needs a FILE"),
        (["-", "--format", "json"], "--format json needs --output"),
        (["-", "--format", "all"], "--format all is for 'voxmlx transcribe'"),
        (["-", "--dtype", "mp3"], "'mp3' is not one of"),
        (["-", "--rate", "0"], "Invalid value for '--rate'"),
        (["-", "--delay", "100"], "100 is not one of"),
    ],
)
def test_wrong_usage(cli, arguments, message):
    outcome = cli("live", *arguments)

    assert outcome.code == 2
    assert message in outcome.err


def test_no_microphone(cli, monkeypatch, model):
    install(monkeypatch).devices = []
    outcome = cli("live", "--model", model)

    assert outcome.code == 1
    assert outcome.err.startswith("error: microphone: none was found; plug one in, or ")


def test_output_that_cannot_be_written(cli, monkeypatch, model, tmp_path):
    install(monkeypatch)
    for option in ("-o", "--save"):
        outcome = cli("live", "--model", model, option, tmp_path / "missing" / "a.srt")
        assert outcome.code == 1
        assert "missing/a.srt: cannot be written: No such file or directory" in outcome.err


def test_empty_pipe(program, model):
    outcome = program("live", "-", "--model", model)

    assert outcome.code == 1
    assert "error: standard input: is empty; pipe sound in" in outcome.err


@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal")
def test_terminal_shows_text_in_place_and_status(model, tmp_path):
    import os
    import pty

    reader, writer = os.pipe()
    pid, terminal = pty.fork()
    if pid == 0:
        os.dup2(reader, 0)
        os.close(writer)
        arguments = program_arguments("live", "-", "--model", model)
        os.execve(arguments[0], arguments, program_environment(tmp_path))
    os.close(reader)
    os.write(writer, pcm(samples()))
    time.sleep(0.2)
    os.close(writer)
    shown = b""
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    _, status = os.waitpid(pid, 0)
    os.close(terminal)

    assert os.waitstatus_to_exitcode(status) == 0
    assert b"delay 480 ms" in shown
    assert b"RTF" in shown
