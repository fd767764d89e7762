"""Which recordings to transcribe, and what to call their outputs.

Inputs are files, folders, patterns, lists and JSON lines, on local disk or, as URLs, wherever
fsspec reaches. The name of an output depends on the inputs alone, so a later run finds it again.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from voxmlx.batch.remote import filesystem, is_url
from voxmlx.errors import VoxmlxError
from voxmlx.tables import AUDIO_KEYS, json_rows, lines, text_of

SUFFIXES = frozenset(
    ".wav .mp3 .flac .ogg .oga .opus .m4a .m4b .aac .wma .aiff .aif .aifc .caf .au .amr .mp2 .mka "
    ".mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .ts .flv .wmv .3gp".split()
)
"""What is taken from folders; a file named itself may have any suffix."""

LIST_SUFFIXES = frozenset({".txt", ".lst", ".jsonl", ".ndjson"})


class InputError(VoxmlxError):
    """The inputs name nothing, or two of them would have one output."""


@dataclass(frozen=True)
class Item:
    """One recording.

    Attributes:
        name: Path of its outputs below the output folder, without suffix.
        source: Path or URL of the recording.
    """

    name: str
    source: str


def find_items(inputs: Iterable[str]) -> list[Item]:
    """Recordings that ``inputs`` name, each once.

    Raises:
        InputError: If an input names nothing, or two recordings would have the same output.
        ManifestError: If a list cannot be read.
    """
    found: dict[str, PurePosixPath] = {}
    for text in inputs:
        named = dict(_expand(text))
        found = named | found
        if not named:
            raise InputError(f"{text}: no recordings there")
    short = Counter(name.with_suffix("") for name in found.values())
    items = []
    taken: dict[str, str] = {}
    for source, name in found.items():
        plain = name.with_suffix("")
        item = Item(str(plain if short[plain] == 1 else name), source)
        if item.name in taken:
            raise InputError(
                f"{taken[item.name]} and {source} would both be written to {item.name}; "
                "give the folder above both"
            )
        taken[item.name] = source
        items.append(item)
    return items


def _expand(text: str) -> Iterator[tuple[str, PurePosixPath]]:
    """Sources of one input with their names, sorted."""
    if is_url(text):
        yield from _expand_url(text)
        return
    path = Path(text)
    if path.is_dir():
        files = (Path(folder, file) for folder, _, files in os.walk(path) for file in files)
        for each in sorted(file for file in files if file.suffix.lower() in SUFFIXES):
            yield str(each), PurePosixPath(each.relative_to(path).as_posix())
    elif path.suffix.lower() in LIST_SUFFIXES and path.is_file():
        yield from _read_list(path)
    elif path.exists() or not glob.has_magic(text):
        yield text, PurePosixPath(path.name)
    else:
        root = _fixed_part(text)
        for file in sorted(glob.glob(text, recursive=True)):
            if Path(file).is_file():
                yield file, _below(Path(file), root)


def _read_list(path: Path) -> Iterator[tuple[str, PurePosixPath]]:
    """A recording a line, or in each JSON object; paths are relative to the list."""
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        rows = ((text_of(path, n, row, "recording", AUDIO_KEYS)) for n, row in json_rows(path))
    else:
        rows = (line.strip() for _, line in lines(path))
    for text in rows:
        if is_url(text):
            yield text, PurePosixPath(text.split("://", 1)[1])
        else:
            source = path.parent / text
            yield str(source), _below(source, path.parent)


def _expand_url(url: str) -> Iterator[tuple[str, PurePosixPath]]:
    files, path = filesystem(url)
    if glob.has_magic(path):
        root, found = str(_fixed_part(path)), files.glob(path)
    elif files.isdir(path):
        root = path
        found = [p for p in files.find(path) if PurePosixPath(p).suffix.lower() in SUFFIXES]
    else:
        root, found = str(PurePosixPath(path).parent), [path]
    for each in sorted(found):
        name = PurePosixPath(each)
        base = PurePosixPath(root)
        below = name.relative_to(base) if name.is_relative_to(base) else PurePosixPath(name.name)
        yield files.unstrip_protocol(each), below


def _fixed_part(pattern: str) -> Path:
    """The folder above the first part of a pattern that has wildcards."""
    parts: list[str] = []
    for part in Path(pattern).parts:
        if glob.has_magic(part):
            break
        parts.append(part)
    return Path(*parts)


def _below(path: Path, root: Path) -> PurePosixPath:
    """``path`` below ``root``; for one that lies elsewhere, its whole path without the root."""
    normal = Path(os.path.normpath(path))
    try:
        return PurePosixPath(normal.relative_to(os.path.normpath(root)).as_posix())
    except ValueError:
        absolute = Path(os.path.abspath(path))
        return PurePosixPath(*absolute.parts[1:])
