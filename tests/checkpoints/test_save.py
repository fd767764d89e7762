from __future__ import annotations

import errno
import json

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from tests import tiny_checkpoints as tiny
from voxmlx.checkpoints.load import load_model, parameters
from voxmlx.checkpoints.mlx_audio import MLX_AUDIO_REALTIME
from voxmlx.checkpoints.safetensors import SafetensorsWriter, TensorSpec
from voxmlx.checkpoints.save import (
    TensorGroup,
    quantization_section,
    save_model,
    split_shards,
    write_checkpoint,
)
from voxmlx.config import QuantizationConfig
from voxmlx.errors import CheckpointError, OutputError


def assert_equal(a, b):
    a, b = parameters(a), parameters(b)
    assert set(a) == set(b)
    for name, array in a.items():
        assert array.dtype == b[name].dtype, name
        assert mx.array_equal(array, b[name]), name


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_saved_model_is_bit_equal(tmp_path, dtype):
    loaded = load_model(tiny.write_folder(tmp_path / "a", "hf", dtype=dtype))

    save_model(loaded.model, loaded.config, tmp_path / "b")

    again = load_model(tmp_path / "b")
    assert again.layout is MLX_AUDIO_REALTIME
    assert again.config == loaded.config
    assert_equal(again.model, loaded.model)


def test_saved_names_are_those_of_mlx_audio(tmp_path):
    loaded = load_model(tiny.write_folder(tmp_path / "a", "native"))

    save_model(loaded.model, loaded.config, tmp_path / "b")

    names = set(mx.load(str(tmp_path / "b" / "model.safetensors")))
    assert names == {tiny.mlx_audio_name(name) for name in tiny.internal_weights()}


def test_saved_quantised_model_is_bit_equal(tmp_path):
    """Three settings in one model: most modules, others, and floating point."""
    loaded = load_model(tiny.write_folder(tmp_path / "a", "native"))

    def choose(path, module):
        if not hasattr(module, "to_quantized") or ".ada_norm." in path or "embed" in path:
            return False
        bits = 8 if path.startswith("encoder") else 4
        return {"group_size": 32, "bits": bits, "mode": "affine"}

    nn.quantize(loaded.model, class_predicate=choose)
    save_model(loaded.model, loaded.config, tmp_path / "b")

    assert_equal(load_model(tmp_path / "b").model, loaded.model)


def test_shards_and_index(tmp_path):
    loaded = load_model(tiny.write_folder(tmp_path / "a", "native"))

    save_model(loaded.model, loaded.config, tmp_path / "b", max_shard_bytes=800_000)

    shards = sorted((tmp_path / "b").glob("model-*.safetensors"))
    assert [p.name for p in shards] == [
        f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)
    ]
    assert len(shards) > 2
    assert all(path.stat().st_size < 820_000 for path in shards)
    index = json.loads((tmp_path / "b" / "model.safetensors.index.json").read_text())
    total = sum(array.nbytes for array in parameters(loaded.model).values())
    assert index["metadata"] == {"total_size": total}
    for name, file in index["weight_map"].items():
        assert name in mx.load(str(tmp_path / "b" / file))
    assert_equal(load_model(tmp_path / "b").model, loaded.model)


def group(*sizes):
    specs = tuple(TensorSpec(f"t{n}", (n,), mx.uint8) for n in sizes)
    return TensorGroup(specs, lambda: [mx.zeros(n, mx.uint8) for n in sizes])


def test_split_shards_keeps_groups_whole():
    groups = [group(4, 3), group(3), group(20), group(1), group(9)]

    shards = split_shards(groups, 10)

    assert [[g.nbytes for g in shard] for shard in shards] == [[7, 3], [20], [1, 9]]


def test_section_holds_the_usual_setting_and_the_others():
    q4, q8 = QuantizationConfig(4, 64), QuantizationConfig(8, 32)
    settings = {
        "decoder.embed_tokens": q8,
        "decoder.layers.0.mlp.up_proj": q4,
        "decoder.layers.1.mlp.up_proj": q4,
    }

    assert quantization_section(settings, MLX_AUDIO_REALTIME) == {
        "group_size": 64,
        "bits": 4,
        "mode": "affine",
        "decoder.tok_embeddings": {"group_size": 32, "bits": 8, "mode": "affine"},
    }


def test_configuration_is_written_last(tmp_path):
    def fail():
        raise RuntimeError("killed")

    broken = TensorGroup((TensorSpec("t", (1000,), mx.float32),), fail)

    with pytest.raises(RuntimeError, match="killed"):
        write_checkpoint(tmp_path, [group(4), broken], {"model_type": "voxtral_realtime"})

    assert not (tmp_path / "config.json").exists()
    with pytest.raises(CheckpointError):
        load_model(tmp_path)


def test_full_disk_is_one_line(tmp_path, monkeypatch):
    class FullDisk:
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            pass

    monkeypatch.setattr(type(tmp_path), "open", lambda *args: FullDisk())

    with pytest.raises(OutputError) as info:
        SafetensorsWriter(tmp_path / "model.safetensors", [])
    assert str(info.value) == (
        f"{tmp_path}/model.safetensors: the disk is full; free space and run again"
    )


def test_folder_that_cannot_be_made(tmp_path):
    loaded = load_model(tiny.write_folder(tmp_path / "a", "native"))
    (tmp_path / "file").write_text("")

    with pytest.raises(OutputError) as info:
        save_model(loaded.model, loaded.config, tmp_path / "file" / "b")
    assert str(info.value) == f"{tmp_path}/file/b: cannot be written: Not a directory"


def test_saved_weights_are_those_of_the_source(tmp_path):
    weights = tiny.internal_weights()
    loaded = load_model(tiny.write_folder(tmp_path / "a", "hf", weights))
    save_model(loaded.model, loaded.config, tmp_path / "b")

    saved = mx.load(str(tmp_path / "b" / "model.safetensors"))

    for name, array in tiny.layout_weights("mlx_audio", weights).items():
        assert np.array_equal(np.asarray(saved[name]), array), name
