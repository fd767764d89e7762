"""Which files of a folder or a repository make up one checkpoint.

Decides by file names only, so the same rules serve local folders and listings of the Hub. Published
folders may hold the weights twice, or a second, stale file; one set is taken, never a mixture.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from voxmlx.checkpoints.config_file import read_json
from voxmlx.errors import CheckpointError, ConfigError

INDEX_FILE = "model.safetensors.index.json"
TOKENIZER_FILE = "tekken.json"
CONFIG_FILE = "config.json"
PARAMS_FILE = "params.json"

HLWQ_FILES = ("codes.safetensors", "bf16.safetensors")
"""A set of weights in one spelling of HLWQ: coded matrices, and what is not coded."""

_SHARD = re.compile(r"^model-(\d+)-of-(\d+)\.safetensors$")
_CONSOLIDATED = re.compile(r"^consolidated.*\.safetensors$")


def choices(names: Iterable[str]) -> Iterator[tuple[list[str], str]]:
    """Sets of weight files with the configuration beside them, the best first.

    Args:
        names: Files of the folder.
    """
    names = set(names)
    shards = sorted(n for n in names if _SHARD.match(n))
    if "model.safetensors" in names and not (shards and INDEX_FILE in names):
        shards = ["model.safetensors"]
    consolidated = sorted(n for n in names if _CONSOLIDATED.match(n))
    coded = sorted(n for n in names if n in HLWQ_FILES) if "codes.safetensors" in names else []
    for weights, config in (
        (shards, CONFIG_FILE),
        (consolidated, PARAMS_FILE),
        (shards, PARAMS_FILE),
        (consolidated, CONFIG_FILE),
        (coded, CONFIG_FILE),
    ):
        if weights and config in names:
            yield weights, config


def local_choices(folder: Path) -> list[tuple[list[Path], Path]]:
    """:func:`choices` for a local folder, complete sets only.

    Raises:
        CheckpointError: If the folder holds no checkpoint, or only a part of one.
    """
    try:
        names = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be read: {error.strerror}") from error
    found = [
        ([folder / name for name in _whole_set(folder, weights)], folder / config)
        for weights, config in choices(names)
    ]
    if found:
        return found
    if not any(n.endswith(".safetensors") for n in names):
        raise CheckpointError(
            f"{folder}: no weights; expected model*.safetensors or consolidated.safetensors"
        )
    if names.isdisjoint((CONFIG_FILE, PARAMS_FILE)):
        raise CheckpointError(f"{folder}: no configuration; expected config.json or params.json")
    raise CheckpointError(
        f"{folder}: none of its safetensors files is called model*.safetensors or "
        "consolidated.safetensors"
    )


def _whole_set(folder: Path, weights: list[str]) -> list[str]:
    index = folder / INDEX_FILE
    if weights[0].startswith("model") and index.exists():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise ConfigError(f"{index}: key 'weight_map' is missing or empty")
        weights = sorted(set(map(str, weight_map.values())))
    elif match := _SHARD.match(weights[0]):
        count = int(match.group(2))
        weights = [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
    missing = [name for name in weights if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder / missing[0]}: this shard is missing ({len(missing)} of {len(weights)} are); "
            "download the folder again"
        )
    return weights


def files_to_download(names: Iterable[str]) -> list[str]:
    """The files of a repository to fetch: one set of weights, configurations and the tokenizer.

    Raises:
        CheckpointError: If the repository holds no checkpoint.
    """
    names = set(names)
    best = next(choices(names), None)
    if best is None:
        raise CheckpointError("no weights beside a config.json or params.json")
    weights, _ = best
    small = {CONFIG_FILE, PARAMS_FILE, TOKENIZER_FILE}
    if weights[0].startswith("model"):
        small.add(INDEX_FILE)
    return [*weights, *sorted(small & names)]
