from __future__ import annotations

import json
import sys

import pytest

from tests import tiny_checkpoints as tiny
from tests.hub_server import point_client_at, run_hub_server
from voxmlx.quantization.modes import make_quantization
from voxmlx_convert.cli import build_recipe, main


@pytest.fixture
def source(tmp_path):
    return tiny.write_folder(tmp_path / "source", "native")


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["voxmlx-convert", *map(str, arguments)])
        with pytest.raises(SystemExit) as info:
            main()
        captured = capsys.readouterr()
        return info.value.code or 0, captured.out, captured.err

    return call


def test_conversion_prints_sizes(run, source, tmp_path):
    code, out, err = run(source, "--mlx-path", tmp_path / "out", "-q", "--q-group-size", "32")

    assert (code, err) == (0, "")
    assert "4 bits, group 32, affine" in out
    assert f"{tmp_path}/out: written in " in out
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["quantization"] == {"group_size": 32, "bits": 4, "mode": "affine"}


def test_source_as_a_flag(run, source, tmp_path):
    code, _, _ = run("--hf-path", source, "--mlx-path", tmp_path / "out")

    assert code == 0


def test_verify_prints_errors(run, source, tmp_path):
    code, out, _ = run(source, "--mlx-path", tmp_path / "out", "--dtype", "bfloat16", "--verify")

    assert code == 0
    assert "verified on 86 tokens: logit error max " in out
    card = (tmp_path / "out" / "README.md").read_text()
    assert "## Checked against the source" in card
    assert f"voxmlx-convert {source} --mlx-path {tmp_path}/out --dtype bfloat16 --verify" in card


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the hub's client
def test_upload(run, source, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    with run_hub_server() as hub:
        point_client_at(hub, monkeypatch, tmp_path / "cache")
        code, out, _ = run(source, "--mlx-path", tmp_path / "out", "--upload-repo", "me/model")

    assert code == 0
    assert out.splitlines()[-1].endswith("/commit/0123456789abcdef0123456789abcdef01234567")
    assert "config.json" in hub.repos["me/model"]
    assert "# me/model" in (tmp_path / "out" / "README.md").read_text()


def test_error_is_one_line(run, tmp_path):
    code, out, err = run(tmp_path / "no", "--mlx-path", tmp_path / "out")

    assert (code, out) == (1, "")
    assert err == (
        f"voxmlx-convert: '{tmp_path}/no': no such folder, and not a repository's name "
        "(owner/name)\n"
    )


def test_existing_folder(run, source, tmp_path):
    (tmp_path / "out").mkdir()

    code, _, err = run(source, "--mlx-path", tmp_path / "out")
    assert code == 1
    assert err.endswith("the folder exists; use --overwrite to replace it\n")
    assert run(source, "--mlx-path", tmp_path / "out", "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give the source once, as SOURCE or as --hf-path"),
        (["a", "--hf-path", "b"], "give the source once, as SOURCE or as --hf-path"),
        (["a", "--dtype", "int8"], "--dtype must be one of float16, bfloat16, float32"),
        (["a", "--q-bits", "7"], "bits of mode affine must be one of 2, 3, 4, 5, 6, 8"),
        (["a", "--q-mode", "gguf"], "mode must be one of affine, mxfp4, nvfp4, mxfp8"),
        (["a", "--q-encoder", "many"], "expected none, a number of bits such as 8"),
        (["a", "--q-recipe", "int4", "--q-bits", "4"], "--q-recipe says bits, groups and modes"),
        (["a", "--q-recipe", "q4_k"], "recipe must be one of int8, int6, int5, int4"),
        (["a", "-d", "-q"], "--dequantize leaves nothing to quantise"),
        (["a", "--no-such-flag"], "--no-such-flag"),
    ],
)
def test_bad_usage(run, arguments, message):
    code, _, err = run(*arguments)

    assert code == 2
    assert message in " ".join(err.split())


def test_help(run):
    code, out, _ = run("--help")

    assert code == 0
    for flag in ("--mlx-path", "--q-recipe", "--q-embedding", "--verify", "--upload-repo"):
        assert flag in out
    assert "voxmlx-convert ./voxtral --mlx-path voxtral-mixed --q-recipe mixed-4-8" in out


def test_no_flags_keep_the_source():
    assert build_recipe() is None


def test_one_part_alone():
    recipe = build_recipe(encoder="8")

    assert recipe("encoder.layers.0.mlp.up_proj", (8, 64)) == make_quantization(bits=8)
    assert recipe("adapter.linear_1", (8, 64)) == make_quantization(bits=8)
    assert recipe("decoder.embed_tokens", (8, 64)) is None


def test_parts_over_a_recipe():
    recipe = build_recipe(recipe="int4", encoder="mxfp8", embedding="none")

    assert recipe("encoder.layers.0.mlp.up_proj", (8, 64)).mode == "mxfp8"
    assert recipe("decoder.embed_tokens", (8, 64)) is None
    assert recipe("decoder.layers.0.mlp.up_proj", (8, 64)).bits == 4


def test_bits_alone_quantise():
    assert build_recipe(bits=6)("adapter.linear_1", (8, 64)) == make_quantization(bits=6)
