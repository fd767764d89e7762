from __future__ import annotations

import pytest

from voxmlx.checkpoints.files import choices, files_to_download
from voxmlx.errors import CheckpointError

INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], []),
        (["model.safetensors"], []),
        (
            ["model.safetensors", "config.json"],
            [(["model.safetensors"], "config.json")],
        ),
        (
            ["consolidated.safetensors", "model.safetensors", "config.json", "params.json"],
            [
                (["model.safetensors"], "config.json"),
                (["consolidated.safetensors"], "params.json"),
                (["model.safetensors"], "params.json"),
                (["consolidated.safetensors"], "config.json"),
            ],
        ),
        (
            ["model-00002-of-00002.safetensors", "model-00001-of-00002.safetensors", "config.json"],
            [
                (
                    ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
                    "config.json",
                )
            ],
        ),
    ],
)
def test_choices(names, expected):
    assert list(choices(names)) == expected


def test_index_decides_between_one_file_and_shards():
    names = ["model.safetensors", "model-00001-of-00001.safetensors", "config.json"]

    assert next(choices(names))[0] == ["model.safetensors"]
    assert next(choices([*names, INDEX]))[0] == ["model-00001-of-00001.safetensors"]


def test_download_of_one_set_only():
    names = ["consolidated.safetensors", "params.json", "model.safetensors", INDEX]
    names += ["config.json", "tekken.json", "README.md", "original/model.safetensors"]

    assert files_to_download(names) == [
        "model.safetensors",
        "config.json",
        INDEX,
        "params.json",
        "tekken.json",
    ]


def test_nothing_to_download():
    with pytest.raises(CheckpointError, match="no weights beside a config.json or params.json"):
        files_to_download(["README.md", "model.safetensors"])
