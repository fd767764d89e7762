"""Other programs get the same network, and are asked in turn."""

from __future__ import annotations

import json
import os
import stat
import sys

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from voxmlx.audio.decode import read_audio
from voxmlx.checkpoints.hub import resolve
from voxmlx.checkpoints.load import load_model
from voxmlx.errors import VoxmlxError
from voxmlx.peers.compare import PROGRAMS, PROMPT_FILE, compare, unpacked, write_folder
from voxmlx.pipeline import load


@pytest.fixture(scope="module")
def loaded():
    return load_model(resolve("tiny"), mx.float32)


def run(samples):
    return [1, 2, len(samples)]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_gets_the_weights_unpacked(loaded, program, tmp_path):
    plain = unpacked(loaded.model)

    write_folder(program, plain, loaded.tokenizer_path, 480, tmp_path / program)

    written = load_model(tmp_path / program, mx.float32).model
    expected = dict(tree_flatten(plain.parameters()))
    found = dict(tree_flatten(written.parameters()))
    assert found.keys() == expected.keys()
    assert all(mx.array_equal(found[name], x) for name, x in expected.items())
    mel = mx.random.normal((1, 32, 128), key=mx.random.key(0))
    assert mx.allclose(plain.embed_audio(mel), loaded.model.embed_audio(mel), atol=1e-4)


def test_transformers_is_told_the_prompt_and_the_silence(loaded, tmp_path):
    write_folder("transformers", unpacked(loaded.model), loaded.tokenizer_path, 960, tmp_path / "t")

    values = json.loads((tmp_path / "t" / PROMPT_FILE).read_text())
    config = json.loads((tmp_path / "t" / "config.json").read_text())

    assert values["prompt"] == [1] + [32] * (32 + 12)
    assert (values["n_delay"], values["eos"], values["position"]) == (12, 2, 1280)
    assert (values["left"], values["right"]) == (32 * 1280, (12 + 1 + 10) * 1280)
    assert config["dtype"] == "float32"


@pytest.mark.oracle
def test_transformers_writes_the_same_ids(loaded):
    python = dict(p.split("=") for p in os.environ.get("VOXMLX_PEERS", "").split()).get(
        "transformers", sys.executable
    )
    clips = {"speech": read_audio(resolve("tiny").parent / "examples" / "american_1.ogg")[:64000]}
    model = load("tiny", dtype=mx.float32)

    def own(samples):
        return model.generate(samples, sample_rate=16000).tokens

    ((_, (_, peer)),) = compare(
        loaded.model, loaded.tokenizer_path, own, clips, {"transformers": python}, turns=1
    )

    n = len(own(clips["speech"]))
    assert peer.same_ids == (n - 1) / n  # its generate ends one position before the audio does


def test_programs_are_asked_in_turn(loaded, tmp_path):
    asked = tmp_path / "asked.txt"
    python = tmp_path / "python"
    python.write_text(
        f"""#!{sys.executable}
import json
print("{{}}", flush=True)
with open({str(asked)!r}, "a") as file:
    while line := input():
        print("peer", file=file, flush=True)
        print(json.dumps({{"wall_s": 9.0, "cpu_s": 8.0, "ids": [1, 5, 40]}}), flush=True)
"""
    )
    python.chmod(python.stat().st_mode | stat.S_IXUSR)

    def own(samples):
        with asked.open("a") as file:
            print("own", file=file)
        return run(samples)

    clips = {"noise": np.zeros(40, np.float32)}
    pythons = {"mlx-audio": str(python)}
    tokenizer = loaded.tokenizer_path
    ((title, (ours, peer)),) = compare(loaded.model, tokenizer, own, clips, pythons, turns=2)

    assert title == "noise"
    assert asked.read_text().split() == ["own", "peer", "own", "peer"]
    assert (ours.program, ours.times, ours.same_ids) == ("voxmlx", 1.0, 1.0)
    assert (peer.wall_s, peer.cpu_s, peer.same_ids) == (9.0, 8.0, 2 / 3)
    assert peer.times == peer.cpu_s / ours.cpu_s


def test_a_program_that_is_not_there_is_named(loaded):
    clips = {"noise": np.zeros(40, np.float32)}
    with pytest.raises(VoxmlxError, match="mlx-audio: cannot run /nowhere/python"):
        list(
            compare(
                loaded.model, loaded.tokenizer_path, run, clips, {"mlx-audio": "/nowhere/python"}
            )
        )
    with pytest.raises(VoxmlxError, match="mlx-audio: .* ended: .*mlx_audio"):
        list(
            compare(loaded.model, loaded.tokenizer_path, run, clips, {"mlx-audio": sys.executable})
        )
    with pytest.raises(ValueError, match="peers must be of"):
        list(compare(loaded.model, loaded.tokenizer_path, run, clips, {"whisper": "python"}))
