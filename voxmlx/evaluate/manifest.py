"""Data sets as lists of recordings with their true text. Knows file layouts, not models.

Read are LibriSpeech folders (``*.trans.txt``), folders with a ``text.tsv``, the tables of FLEURS
and Common Voice, and JSON lines or CSV with a recording and its text in each row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxmlx.tables import AUDIO_KEYS, ManifestError, csv_rows, json_rows, lines, pick, text_of

TEXT_KEYS = ("text", "sentence", "transcription", "transcript", "reference", "raw_transcription")
LANGUAGE_KEYS = ("language", "lang", "locale")
"""Columns of NeMo, Hugging Face and Common Voice tables, best first."""

_LIBRISPEECH_SUFFIXES = (".flac", ".wav", ".opus", ".ogg", ".mp3")
_FLEURS_COLUMNS = 7  # id, file_name, raw_transcription, transcription, phonemes, samples, gender


@dataclass(frozen=True)
class Utterance:
    """One recording and what is said in it.

    Attributes:
        id: Name that is the same wherever the data set lies.
        audio: Path of the recording.
        text: The reference.
        language: Two-letter code, or ``None`` if the data set does not say.
    """

    id: str
    audio: Path
    text: str
    language: str | None = None


def read_manifest(path: str | Path, language: str | None = None) -> list[Utterance]:
    """Read a data set.

    Args:
        path: A folder or a table; its layout is found by what is in it.
        language: Language of rows that name none.

    Raises:
        ManifestError: If there is no data set, a row lacks a column, or a recording is missing.
    """
    path = Path(path)
    if path.is_dir():
        found = _read_folder(path, language)
    elif path.is_file():
        found = list(_read_table(path, language))
    else:
        raise ManifestError(f"{path}: no such file or folder")
    if not found:
        raise ManifestError(f"{path}: holds no utterances")
    _check(path, found)
    return found


def _check(path: Path, utterances: list[Utterance]) -> None:
    missing = [u.audio for u in utterances if not u.audio.is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ManifestError(f"{path}: recording {missing[0]}{more} is missing")
    seen: set[str] = set()
    for utterance in utterances:
        if utterance.id in seen:
            raise ManifestError(f"{path}: {utterance.id} is listed twice")
        seen.add(utterance.id)


def _read_folder(folder: Path, language: str | None) -> list[Utterance]:
    if (folder / "text.tsv").is_file():
        return list(_read_table(folder / "text.tsv", language))
    found: list[Utterance] = []
    for transcripts in sorted(folder.rglob("*.trans.txt")):
        found += _read_librispeech(transcripts, "en" if language is None else language)
    if not found:
        raise ManifestError(
            f"{folder}: expected *.trans.txt (LibriSpeech) or text.tsv (file, tab, text) in it; "
            "give the table itself if it has another name"
        )
    return found


def _read_librispeech(path: Path, language: str) -> Iterator[Utterance]:
    for number, line in lines(path):
        name, _, text = line.partition(" ")
        candidates = [path.parent / (name + suffix) for suffix in _LIBRISPEECH_SUFFIXES]
        audio = next((c for c in candidates if c.is_file()), None)
        if audio is None:
            raise ManifestError(f"{path}, line {number}: recording {candidates[0]} is missing")
        yield Utterance(name, audio, text.strip(), language)


def _read_table(path: Path, language: str | None) -> Iterator[Utterance]:
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".json", ".ndjson"):
        return _from_rows(path, json_rows(path), language)
    if suffix == ".csv":
        return _from_rows(path, csv_rows(path), language)
    if suffix in (".tsv", ".txt"):
        return _read_tsv(path, language)
    raise ManifestError(f"{path}: expected .jsonl, .csv or .tsv")


def _read_tsv(path: Path, language: str | None) -> Iterator[Utterance]:
    rows = [(number, line.split("\t")) for number, line in lines(path)]
    if not rows:
        return
    head = rows[0][1]
    if pick(head, AUDIO_KEYS) is not None and pick(head, TEXT_KEYS) is not None:
        named = ((number, dict(zip(head, row, strict=False))) for number, row in rows[1:])
        yield from _from_rows(path, named, language)
        return
    if len(head) == _FLEURS_COLUMNS:
        if language is None:
            language = _fleurs_language(path)
        yield from _read_fleurs(path, rows, language)
        return
    for number, row in rows:
        if len(row) != 2:
            raise ManifestError(
                f"{path}, line {number}: expected file, tab, text, got {len(row)} columns"
            )
        yield _utterance(path, row[0], row[1], language)


def _read_fleurs(
    path: Path, rows: Iterable[tuple[int, list[str]]], language: str | None
) -> Iterator[Utterance]:
    for number, row in rows:
        if len(row) != _FLEURS_COLUMNS:
            raise ManifestError(
                f"{path}, line {number}: expected {_FLEURS_COLUMNS} columns, got {len(row)}"
            )
        yield _utterance(path, row[1], row[2], language)


def _fleurs_language(path: Path) -> str | None:
    """Language of ``.../en_us/test.tsv``; its folder is named by language and country."""
    code = path.resolve().parent.name.split("_")[0]
    code = {"cmn": "zh"}.get(code, code)
    return code if len(code) == 2 else None


def _from_rows(
    path: Path, rows: Iterable[tuple[int, Mapping[str, Any]]], language: str | None
) -> Iterator[Utterance]:
    for number, row in rows:
        audio = text_of(path, number, row, "recording", AUDIO_KEYS)
        text = text_of(path, number, row, "text", TEXT_KEYS)
        own = pick(row, LANGUAGE_KEYS)
        code = str(row[own]).lower()[:2] if own is not None and row[own] else language
        yield _utterance(path, audio, text, code)


def _utterance(table: Path, audio: str, text: str, language: str | None) -> Utterance:
    """A row of a table; recordings are looked for where the known data sets keep them."""
    folder = table.parent
    places = [folder / audio, folder / "clips" / audio, folder / "audio" / table.stem / audio]
    places += [folder / table.stem / audio, folder / "audio" / audio]
    found = next((place for place in places if place.is_file()), places[0])
    return Utterance(audio, found, text.strip(), language)
