from __future__ import annotations

import json

import mlx.core as mx
import numpy as np
import pytest

from tests import tiny_checkpoints as tiny
from voxmlx.checkpoints.load import load_model, parameters
from voxmlx.errors import CheckpointError, HubError, OutputError, TokenizerError
from voxmlx.quantization.modes import make_quantization
from voxmlx.quantization.recipes import uniform
from voxmlx_convert import convert as module
from voxmlx_convert.convert import Options, convert


@pytest.fixture
def source(tmp_path):
    return tiny.write_folder(tmp_path / "source", "native")


def test_result_is_complete(source, tmp_path):
    conversion = convert(str(source), tmp_path / "out", Options())

    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "model.safetensors.index.json",
        "tekken.json",
    ]
    assert (tmp_path / "out" / "tekken.json").read_bytes() == (source / "tekken.json").read_bytes()
    assert conversion.folder == tmp_path / "out"
    assert conversion.peak_bytes > 10_000_000
    assert conversion.verification is None
    got = parameters(load_model(tmp_path / "out").model)
    for name, array in tiny.internal_weights().items():
        assert np.array_equal(np.asarray(got[name]), array), name


def test_configuration_has_what_mlx_audio_reads(source, tmp_path):
    recipe = uniform(make_quantization(bits=4, group_size=32))
    convert(str(source), tmp_path / "out", Options(recipe=recipe, dtype=mx.bfloat16))

    config = json.loads((tmp_path / "out" / "config.json").read_text())

    assert config["model_type"] == "voxtral_realtime"
    ours = {**tiny.mlx_audio_config()["encoder_args"], "vocab_size": None}
    for key in ("dim", "n_layers", "n_heads", "head_dim", "sliding_window", "downsample_factor"):
        assert config["encoder_args"][key] == ours[key]
    assert config["encoder_args"]["audio_encoding_args"]["num_mel_bins"] == 128
    assert config["decoder"] == tiny.mlx_audio_config()["decoder"]
    assert config["quantization"] == {"group_size": 32, "bits": 4, "mode": "affine"}


def test_progress_covers_every_byte(source, tmp_path):
    totals, done = [], []

    convert(
        str(source),
        tmp_path / "out",
        Options(),
        on_start=lambda plan: totals.append(plan.total.nbytes),
        on_group=lambda group: done.append(group.nbytes),
    )

    assert sum(done) == totals[0]


def test_verification_uses_the_result(source, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        module, "verify_conversion", lambda *args: seen.append(args) or pytest.fail("checked")
    )

    with pytest.raises(pytest.fail.Exception, match="checked"):
        convert(str(source), tmp_path / "out", Options(verify_audio=np.zeros(1600, np.float32)))

    assert seen[0][0] == source
    assert not (tmp_path / "out").exists()


def test_tokenizer_is_needed(source, tmp_path):
    (source / "tekken.json").unlink()

    with pytest.raises(TokenizerError) as info:
        convert(str(source), tmp_path / "out", Options())
    assert str(info.value) == f"{source}/tekken.json: missing; the result needs it"


def test_broken_source_makes_no_folder(source, tmp_path):
    path = source / "consolidated.safetensors"
    path.write_bytes(path.read_bytes()[:-10])

    with pytest.raises(CheckpointError, match="ends at byte"):
        convert(str(source), tmp_path / "out", Options())
    assert not (tmp_path / "out").exists()


def test_no_source(tmp_path):
    with pytest.raises(HubError, match="no such folder, and not a repository's name"):
        convert(str(tmp_path / "no"), tmp_path / "out", Options())


def test_target_is_checked_before_the_source(tmp_path):
    (tmp_path / "out").mkdir()

    with pytest.raises(OutputError, match="use --overwrite"):
        convert(str(tmp_path / "no"), tmp_path / "out", Options())


def test_full_disk_while_writing(source, tmp_path, monkeypatch):
    import errno

    from voxmlx.checkpoints.safetensors import SafetensorsWriter

    writes = []
    write = SafetensorsWriter._write

    def fill(self, data):
        writes.append(data)
        if len(writes) == 10:
            self._file.close()
            self._file = FullDisk()
        write(self, data)

    class FullDisk:
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            pass

    monkeypatch.setattr(SafetensorsWriter, "_write", fill)

    with pytest.raises(OutputError) as info:
        convert(str(source), tmp_path / "out", Options())
    assert str(info.value).endswith("model.safetensors: the disk is full; free space and run again")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
