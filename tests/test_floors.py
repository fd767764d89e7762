"""The house's one law: a module imports its own folder or a lower floor, never a higher one."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS: list[set[str]] = [
    {"errors", "types", "version"},
    {"config", "kernels"},
    {"audio", "tokenizer", "words", "writers", "tables", "cache", "quantization"},
    {"models"},
    {"checkpoints", "generation"},
    {"streaming"},
    {"offline"},
    {"pipeline"},
    {"engine"},
    {"server", "evaluate", "batch", "benchmark", "peers"},
    {"cli"},
]
# Rooms of one floor that still may see each other: caches use codebooks and rotations.
SIBLINGS = {("words", "tokenizer"), ("writers", "words"), ("cache", "quantization")}


def floor_of(room: str) -> int:
    for number, rooms in enumerate(FLOORS):
        if room in rooms:
            return number
    raise AssertionError(f"voxmlx/{room} stands on no floor; add it to FLOORS")


def imports_of(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.append(node.module or "")
            if node.module == "voxmlx":
                names += [f"voxmlx.{alias.name}" for alias in node.names]
    return names


def violations(package: Path) -> list[str]:
    found = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        room = parts[0]
        if room == "__init__" or room == "__main__":
            continue
        for name in imports_of(path):
            if name.split(".")[0] == "voxmlx_convert":
                found.append(f"{path.name} imports {name}: the package may not know its converter")
            if name.split(".")[0] != "voxmlx":
                continue
            if name == "voxmlx":
                found.append(f"{path.relative_to(package)} imports the package root")
                continue
            other = name.split(".")[1]
            if other == room or (room, other) in SIBLINGS:
                continue
            if floor_of(other) >= floor_of(room):
                found.append(f"{path.relative_to(package)} imports {name}")
    return found


def test_imports_go_down():
    assert violations(ROOT / "voxmlx") == []


@pytest.mark.parametrize("line", ["import voxmlx.cli.main", "from voxmlx.models import layers"])
def test_upward_import_is_found(tmp_path, line):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "ring.py").write_text(line)

    assert len(violations(tmp_path)) == 1
