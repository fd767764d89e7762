"""Tables that list recordings: JSON lines, CSV and TSV as rows. Knows nothing of what they mean."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from voxmlx.errors import VoxmlxError

AUDIO_KEYS = ("audio_filepath", "audio", "path", "file", "file_name", "filename", "wav")
"""Columns that name recordings in NeMo, Hugging Face and Common Voice tables, best first."""


class ManifestError(VoxmlxError):
    """A table of recordings cannot be read."""


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their 1-based numbers.

    Raises:
        ManifestError: If the file cannot be read as UTF-8.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not UTF-8 text ({error.reason})") from error
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from error


def json_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Objects of a JSON-lines file, with their line numbers.

    Raises:
        ManifestError: If a line holds something else.
    """
    for number, line in lines(path):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ManifestError(f"{path}, line {number}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise ManifestError(f"{path}, line {number}: expected an object, got {row!r:.40}")
        yield number, row


def csv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Rows of a CSV file with a head, with their line numbers.

    Raises:
        ManifestError: If the file cannot be read as UTF-8.
    """
    yield from enumerate(csv.DictReader(line for _, line in lines(path)), 2)


def pick(row: Iterable[str], keys: Iterable[str]) -> str | None:
    """The first of ``keys`` that is in ``row``."""
    names = set(row)
    return next((key for key in keys if key in names), None)


def text_of(
    path: Path, number: int, row: Mapping[str, Any], what: str, keys: tuple[str, ...]
) -> str:
    """The text of a row's first column among ``keys``.

    Raises:
        ManifestError: If it has none.
    """
    key = pick(row, keys)
    if key is None or not isinstance(row[key], str):
        raise ManifestError(
            f"{path}, line {number}: has no {what}; expected a column {', '.join(keys)}"
        )
    return str(row[key])
