"""Whatever stands in a configuration or a header, loading works or says what is wrong."""

from __future__ import annotations

import copy
import json
import random
import struct

import pytest

from tests import tiny_checkpoints as tiny
from voxmlx.checkpoints.checkpoint import open_checkpoint
from voxmlx.checkpoints.load import build_network, check_tensors, parameter_shapes
from voxmlx.errors import CheckpointError

WEIGHTS = tiny.internal_weights()
VALUES = [None, True, [], {}, [1], {"a": 1}, "x", "", -1, 0, 3, 1.5, 10**12, float("nan")]


def check(folder):
    """Load all but the data; errors must be ours and one line."""
    try:
        checkpoint = open_checkpoint(folder)
        check_tensors(checkpoint, parameter_shapes(build_network(checkpoint)))
    except CheckpointError as error:
        assert str(folder) in str(error)
        assert "\n" not in str(error)


def paths(values, prefix=()):
    for key, value in values.items():
        yield (*prefix, key)
        if isinstance(value, dict):
            yield from paths(value, (*prefix, key))


def replaced(values, path, value):
    values = copy.deepcopy(values)
    section = values
    for key in path[:-1]:
        section = section[key]
    section[path[-1]] = value
    return values


QUANTIZATION = {"bits": 4, "group_size": 64, "mode": "affine", "decoder.norm": {"bits": 8}}


@pytest.mark.parametrize("layout", tiny.LAYOUTS)
def test_any_value_of_any_key(tmp_path, layout):
    config = tiny.CONFIGS[layout]() | {"quantization": QUANTIZATION}
    folder = tiny.write_folder(tmp_path, layout, WEIGHTS)
    name = "params.json" if layout == "native" else "config.json"
    rng = random.Random(0)
    for path in paths(config):
        for value in VALUES:
            tiny.write_json(folder / name, replaced(config, path, value))
            check(folder)


def header_of(path):
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def test_any_value_of_a_header_entry(tmp_path):
    folder = tiny.write_folder(tmp_path, "hf", WEIGHTS)
    header, data = header_of(folder / "model.safetensors")
    first = next(iter(header))
    for path in [(first,), *((first, key) for key in header[first])]:
        for value in VALUES:
            text = json.dumps(replaced(header, path, value)).encode()
            content = struct.pack("<Q", len(text)) + text + data
            (folder / "model.safetensors").write_bytes(content)
            check(folder)


def test_damaged_bytes(tmp_path):
    folder = tiny.write_folder(tmp_path, "mlx_audio", WEIGHTS)
    path = folder / "model.safetensors"
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    rng = random.Random(0)
    for _ in range(1500):
        damaged = bytearray(content)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(8 + length)] = rng.randrange(256)
        path.write_bytes(bytes(damaged))
        check(folder)


def test_any_length(tmp_path):
    folder = tiny.write_folder(tmp_path, "mlx_audio", WEIGHTS)
    path = folder / "model.safetensors"
    content = path.read_bytes()
    rng = random.Random(0)
    for length in [*range(0, 20), *(rng.randrange(len(content)) for _ in range(50))]:
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            open_checkpoint(folder)
