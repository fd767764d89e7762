from __future__ import annotations

import json
import struct

import mlx.core as mx
import numpy as np
import pytest

from tests.tiny_checkpoints import write_safetensors
from voxmlx.checkpoints.safetensors import (
    SafetensorsWriter,
    TensorSpec,
    open_safetensors,
    read_header,
)
from voxmlx.errors import CheckpointError, OutputError

ARRAYS = {
    "a": np.arange(12, dtype=np.float32).reshape(3, 4),
    "codes": np.arange(6, dtype=np.uint32).reshape(2, 3),
    "empty": np.zeros((0, 4), np.float32),
}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "x.safetensors"
    write_safetensors(path, ARRAYS)
    return path


def write_raw(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_open_lists_and_reads_tensors(path):
    tensors = open_safetensors(path)

    assert {name: t.spec.shape for name, t in tensors.items()} == {
        "a": (3, 4),
        "codes": (2, 3),
        "empty": (0, 4),
    }
    for name in ("a", "codes"):
        assert np.array_equal(np.asarray(tensors[name].read()), ARRAYS[name])


def test_a_tensor_can_be_read_twice(path):
    tensor = open_safetensors(path)["a"]

    assert np.array_equal(np.asarray(tensor.read()), np.asarray(tensor.read()))


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16, mx.uint32, mx.uint8])
def test_writer_and_reader_are_inverse(tmp_path, dtype):
    arrays = [mx.arange(24).reshape(2, 3, 4).astype(dtype), mx.arange(5).astype(dtype)]
    specs = [TensorSpec(f"t{i}", tuple(a.shape), dtype) for i, a in enumerate(arrays)]
    writer = SafetensorsWriter(tmp_path / "y.safetensors", specs)
    for array in arrays:
        writer.write(array)
    writer.close()

    ours = open_safetensors(tmp_path / "y.safetensors")
    theirs = mx.load(str(tmp_path / "y.safetensors"))
    for i, array in enumerate(arrays):
        assert mx.array_equal(ours[f"t{i}"].read(), array)
        assert mx.array_equal(theirs[f"t{i}"], array)


def test_writer_takes_arrays_that_are_not_contiguous(tmp_path):
    array = mx.arange(12).reshape(3, 4).T.astype(mx.bfloat16)
    writer = SafetensorsWriter(tmp_path / "y", [TensorSpec("t", (4, 3), mx.bfloat16)])
    writer.write(array)
    writer.close()

    assert mx.array_equal(open_safetensors(tmp_path / "y")["t"].read(), array)


def test_writer_refuses_another_tensor_than_announced(tmp_path):
    writer = SafetensorsWriter(tmp_path / "y", [TensorSpec("t", (2,), mx.float32)])

    with pytest.raises(ValueError, match=r"tensor 't' must be \(2,\) mlx.core.float32, got \(3,\)"):
        writer.write(mx.zeros(3))
    writer.abort()


def test_a_file_whose_writing_stopped_is_refused(tmp_path):
    path = tmp_path / "y"
    writer = SafetensorsWriter(path, [TensorSpec(n, (2,), mx.float32) for n in "ab"])
    writer.write(mx.zeros(2))
    with pytest.raises(ValueError, match="tensor 'b' was not written"):
        writer.close()

    with pytest.raises(CheckpointError) as info:
        read_header(path)
    assert str(info.value) == (
        f"{path}: tensor 'b' ends at byte 16 of the data, the file has only 8; download it again"
    )


def test_writer_names_the_folder_that_is_missing(tmp_path):
    with pytest.raises(OutputError) as info:
        SafetensorsWriter(tmp_path / "no" / "y", [])

    assert str(info.value) == f"{tmp_path}/no/y: cannot be written: No such file or directory"


def test_missing_file(tmp_path):
    with pytest.raises(CheckpointError) as info:
        read_header(tmp_path / "no")

    assert str(info.value) == f"{tmp_path}/no: cannot be read: No such file or directory"


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"",
            "not a whole safetensors file: the header should take 0 bytes, the file has 0; "
            "download it again",
        ),
        (
            b"12345",
            "not a whole safetensors file: the header should take 228509037105 bytes, the file "
            "has 5; download it again",
        ),
        (
            struct.pack("<Q", 1000) + b"{}",
            "not a whole safetensors file: the header should take 1000 bytes, the file has 10; "
            "download it again",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "a Git LFS pointer, not the weights; run 'git lfs pull' in its folder",
        ),
    ],
)
def test_bad_beginnings(tmp_path, content, message):
    path = tmp_path / "x"
    path.write_bytes(content)

    with pytest.raises(CheckpointError) as info:
        read_header(path)
    assert str(info.value) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("header", "n_data", "message"),
    [
        (
            b"{not json",
            0,
            "the safetensors header is not JSON: Expecting property name enclosed in double "
            "quotes: line 1 column 2 (char 1)",
        ),
        ([1], 0, "the safetensors header is not a JSON object"),
        (
            {"t": {"dtype": "F32", "shape": [2]}},
            8,
            "the header entry of tensor 't' needs dtype, shape and data_offsets, got "
            "{'dtype': 'F32', 'shape': [2]}",
        ),
        (
            {"t": {**ENTRY, "dtype": "F4"}},
            8,
            "tensor 't' has type 'F4'; known types: BOOL, U8, I8, U16, I16, U32, I32, U64, I64, "
            "F16, BF16, F32",
        ),
        (
            {"t": {**ENTRY, "shape": [-2]}},
            8,
            "tensor 't' has shape [-2] and offsets [0, 8]; expected integers of at least 0",
        ),
        (
            {"t": {**ENTRY, "shape": [3]}},
            8,
            "tensor 't' of shape [3] and type F32 takes 12 bytes, its offsets span 8",
        ),
        (
            {"t": ENTRY},
            7,
            "tensor 't' ends at byte 8 of the data, the file has only 7; download it again",
        ),
        ({"t": ENTRY}, 9, "1 bytes follow the last tensor; download it again"),
        (
            {"t": ENTRY, "u": {**ENTRY, "data_offsets": [4, 12]}},
            12,
            "tensor 'u' starts at byte 4 of the data, expected 8",
        ),
    ],
)
def test_bad_headers(tmp_path, header, n_data, message):
    path = tmp_path / "x"
    write_raw(path, header, b"\0" * n_data)

    with pytest.raises(CheckpointError) as info:
        read_header(path)
    assert str(info.value) == f"{path}: {message}"
