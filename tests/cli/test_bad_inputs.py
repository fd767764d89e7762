"""Every bad input gives one clear line on standard error and an exit code, never a traceback."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from tests.cli.conftest import RATE, Outcome, samples, talking_weights
from tests.tiny_checkpoints import write_folder

Folder = Callable[[Path], None]


def check(outcome: Outcome, code: int, message: str) -> None:
    assert outcome.code == code, outcome
    assert re.fullmatch(r"error: [^\n]+\n", outcome.err), outcome.err
    assert re.search(message, outcome.err), outcome.err
    assert "Traceback" not in outcome.out


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def wav_bytes(path: Path, values: np.ndarray, subtype: str = "FLOAT") -> bytes:
    soundfile.write(path, values, RATE, subtype=subtype, format="WAV")
    return path.read_bytes()


def nan_wav(path: Path, value: float) -> Path:
    values = samples(0.5)
    values[4000] = value
    return write(path, wav_bytes(path, values))


def silent_video(path: Path) -> Path:
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    return path


def flac_head(path: Path) -> Path:
    soundfile.write(path, samples(), RATE, format="FLAC")
    return write(path, path.read_bytes()[:60])


def link_to_itself(path: Path) -> Path:
    path.symlink_to(path)
    return path


def broken_rate(path: Path) -> Path:
    data = bytearray(wav_bytes(path, samples(0.1), "PCM_16"))
    data[24:28] = (0).to_bytes(4, "little")
    return write(path, bytes(data))


AUDIO: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda p: p, "x.wav: no such file"),
    "missing, with spaces and unicode": (
        lambda p: p.parent / "ein weg" / "ü 今.wav",
        "ü 今.wav: no",
    ),
    "empty": (lambda p: write(p, b""), "x.wav: is empty"),
    "folder": (lambda p: p.parent, "is a folder"),
    "text named wav": (lambda p: write(p, b"hello there\n" * 50), "x.wav: not a recording"),
    "wav header cut": (lambda p: write(p, wav_bytes(p, samples())[:20]), "x.wav: "),
    "wav without samples": (lambda p: write(p, wav_bytes(p, samples(0))), "x.wav: .*no samples"),
    "not a number": (lambda p: nan_wav(p, np.nan), r"x.wav: the sample at 0.250 s is nan"),
    "infinite": (lambda p: nan_wav(p, np.inf), "x.wav: the sample at 0.250 s is inf"),
    "unscaled floats": (lambda p: nan_wav(p, 9000.0), "x.wav: the sample at 0.250 s is 9000"),
    "rate of zero": (broken_rate, "x.wav: "),
    "flac header alone": (flac_head, "x.wav: "),
    "random bytes": (lambda p: write(p, np.random.default_rng(1).bytes(5000)), "x.wav: not a"),
    "zeros": (lambda p: write(p, bytes(5000)), "x.wav: not a recording"),
    "video without sound": (silent_video, "x.wav: "),
    "image": (lambda p: write(p, b"\x89PNG\r\n\x1a\n" + bytes(100)), "x.wav: "),
    "device": (lambda p: Path("/dev/zero"), "/dev/zero: is a device"),
    "link to nothing": (lambda p: (p.symlink_to(p.with_name("y")), p)[1], "x.wav: no such file"),
    "link to itself": (link_to_itself, "x.wav: cannot be read: Too many levels"),
    "file as a folder": (lambda p: write(p, b"x") / "y.wav", "y.wav: cannot be read: Not a dir"),
    "name too long": (lambda p: p.with_name("n" * 300), "cannot be read: File name too long"),
    "name not in UTF-8": (lambda p: p.with_name("a\udcff.wav"), "no such file"),
    "name with a zero byte": (lambda p: p.with_name("a\0.wav"), "no such file"),
}


@pytest.mark.parametrize("kind", AUDIO)
def test_bad_recording(cli, model, tmp_path, kind):
    make, message = AUDIO[kind]
    check(cli("transcribe", make(tmp_path / "x.wav"), "--model", model), 1, message)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_unreadable_recording(cli, model, tmp_path):
    path = write(tmp_path / "x.wav", b"RIFF")
    path.chmod(0)
    check(cli("transcribe", path, "--model", model), 1, "x.wav: may not be read")


def edit_json(name: str, change: Callable[[dict], object]) -> Folder:
    def edit(folder: Path) -> None:
        values = json.loads((folder / name).read_text())
        change(values)
        (folder / name).write_text(json.dumps(values))

    return edit


def overwrite(name: str, data: bytes) -> Folder:
    return lambda folder: write(folder / name, data) and None


def truncate(name: str, size: int) -> Folder:
    return lambda folder: os.truncate(folder / name, size)


def reweight(change: Callable[[dict[str, np.ndarray]], object]) -> Folder:
    def edit(folder: Path) -> None:
        weights = talking_weights()
        change(weights)
        write_folder(folder, "native", weights)

    return edit


def shrink(weights: dict[str, np.ndarray]) -> None:
    weights["decoder.norm.weight"] = weights["decoder.norm.weight"][:-1]


def zero(weights: dict[str, np.ndarray]) -> None:
    weights["decoder.layers.0.mlp.up_proj.weight"][:] = 0


WEIGHTS = "consolidated.safetensors"
MODELS: dict[str, tuple[Folder, str]] = {
    "empty folder": (lambda f: [p.unlink() for p in f.iterdir()] and None, "bad"),
    "no tokenizer": (lambda f: (f / "tekken.json").unlink(), "tekken.json: no such file"),
    "tokenizer not JSON": (overwrite("tekken.json", b"{"), "tekken.json: not JSON"),
    "tokenizer without vocab": (
        edit_json("tekken.json", lambda d: d.pop("vocab")),
        "tekken.json: vocab: expected list, got nothing",
    ),
    "tokenizer of another size": (
        edit_json("tekken.json", lambda d: d["config"].update(default_vocab_size=1300)),
        "tekken.json: has 1300 ids",
    ),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "bad"),
    "weights empty": (truncate(WEIGHTS, 0), f"{WEIGHTS}"),
    "weights cut": (truncate(WEIGHTS, 100_000), f"{WEIGHTS}"),
    "weights' header cut": (truncate(WEIGHTS, 100), f"{WEIGHTS}"),
    "weights' header broken": (overwrite(WEIGHTS, b"\x40" + bytes(7) + b"{" * 64), f"{WEIGHTS}"),
    "weights' header too long": (overwrite(WEIGHTS, b"\xff" * 64), f"{WEIGHTS}"),
    "tensor missing": (reweight(lambda w: w.pop("decoder.norm.weight")), "'norm.weight'.*missing"),
    "tensor too many": (
        reweight(lambda w: w.update({"decoder.layers.7.ffn_norm.weight": np.ones(128, "f4")})),
        "the decoder has 2 layers, the weights have 3",
    ),
    "tensor of another shape": (reweight(shrink), r"'norm.weight'.*\(127,\)"),
    "tensor of zeros": (reweight(zero), "layers.0.feed_forward.w3.weight.*only zeros"),
    "configuration not JSON": (overwrite("params.json", b"nonsense"), "params.json"),
    "configuration without a key": (edit_json("params.json", lambda d: d.pop("dim")), "'dim'"),
    "configuration of a list": (overwrite("params.json", b"[]"), "params.json"),
    "configuration with text for a number": (
        edit_json("params.json", lambda d: d.update(n_layers="two")),
        "n_layers",
    ),
}


@pytest.mark.parametrize("kind", MODELS)
def test_bad_model(cli, model, recording, tmp_path, kind):
    edit, message = MODELS[kind]
    folder = Path(shutil.copytree(model, tmp_path / "bad"))
    edit(folder)
    check(cli("transcribe", recording, "--model", folder), 1, message)


USAGE: dict[str, tuple[list[str], str]] = {
    "no file": ([], "Missing argument"),
    "unknown delay": (["x", "--delay", "100"], "100 is not one of 80, 160,"),
    "delay of zero": (["x", "--delay", "0"], "0 is not one of 80, 160,"),
    "model without a name": (["x", "--model", ""], "--model.*is empty"),
    "delay in words": (["x", "--delay", "fast"], "--delay.* integer"),
    "unknown format": (["x", "--format", "doc"], "'doc' is not one of 'txt', 'srt'"),
    "unknown type": (["x", "--dtype", "int3"], "'int3' is not one of 'float32'"),
    "negative temperature": (["x", "--temperature", "-1"], "-1.0 is not a number from 0 up"),
    "temperature not a number": (["x", "--temperature", "nan"], "nan is not a number from 0 up"),
    "unknown option": (["x", "--speed", "9"], "No such option.*--speed"),
    "option without a value": (["x", "--model"], "--model.* requires an argument"),
    "all to standard output": (["x", "--format", "all"], "--format all needs --output-dir"),
    "several to standard output": (["x", "y", "-f", "srt"], "of several files needs --output-dir"),
}


@pytest.mark.parametrize("kind", USAGE)
def test_bad_usage(cli, kind):
    arguments, message = USAGE[kind]
    outcome = cli("transcribe", *arguments)
    check(outcome, 2, message)
    assert "voxmlx" in outcome.err and "--help" in outcome.err


def test_unknown_command(cli):
    check(cli("transcripe", "x.wav"), 2, "No such command 'transcripe'.*see 'voxmlx --help'")


@pytest.mark.parametrize(
    "name, message",
    [
        ("no/such/folder", "'no/such/folder': no such folder"),
        ("a b", "'a b': no such folder"),
    ],
)
def test_model_that_is_not_there(cli, recording, name, message):
    check(cli("transcribe", recording, "--model", name), 1, message)


def test_model_that_is_a_file(cli, recording):
    check(
        cli("transcribe", recording, "--model", recording), 1, "talk.wav: a file; give the folder"
    )


def test_repository_without_a_connection(program, recording):
    outcome = program("transcribe", recording, "--model", "someone/some-model")
    check(outcome, 1, "someone/some-model: not in the cache")


def test_no_model_at_all(program, recording):
    outcome = program("transcribe", recording)
    check(outcome, 2, "no model is on this machine; --model mlx-community/.*--model tiny")


def test_nothing_on_standard_input(program, model):
    check(program("transcribe", "-", "--model", model), 1, "standard input: is empty|is a device")
    check(
        program("transcribe", "-", "-m", model, stdin=None, input=b""), 1, "standard input: is em"
    )


def test_text_on_standard_input(program, model):
    outcome = program("transcribe", "-", "--model", model, stdin=None, input=b"hello" * 1000)
    check(outcome, 1, "standard input: not a recording")


def test_output_folder_that_is_a_file(cli, model, recording):
    check(
        cli("transcribe", recording, "-m", model, "-o", recording), 1, "talk.wav: is not a folder"
    )


def test_output_folder_below_a_file(cli, model, recording):
    outcome = cli("transcribe", recording, "-m", model, "-o", recording / "sub")
    check(outcome, 1, "talk.wav/sub: is not a folder")


def test_output_file_that_is_a_folder(cli, model, recording, tmp_path):
    (tmp_path / "talk.txt").mkdir()
    outcome = cli("transcribe", recording, "-m", model, "-o", tmp_path)
    check(outcome, 1, "talk.txt: cannot be written: Is a directory")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /dev/full")
def test_full_disk_under_an_output_file(cli, model, recording, tmp_path):
    (tmp_path / "talk.srt").symlink_to("/dev/full")
    outcome = cli("transcribe", recording, "-m", model, "-o", tmp_path, "-f", "srt")
    check(outcome, 1, "talk.srt: cannot be written: No space left on device")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /dev/full")
def test_full_disk_under_standard_output(program, model, recording):
    with open("/dev/full", "wb") as full:
        outcome = program("transcribe", recording, "-m", model, stdout=full)
    check(outcome, 1, "standard output: No space left on device")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_output_folder(cli, model, recording, tmp_path):
    tmp_path.chmod(0o500)
    outcome = cli("transcribe", recording, "-m", model, "-o", tmp_path / "out")
    check(outcome, 1, "out: cannot be written: Permission denied")
