"""Where outputs go: a local folder, or any place that fsspec reaches.

A store writes a text so that it is there whole or not at all, and still there after a power cut.
"""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path
from typing import Any, Protocol

from voxmlx.batch.remote import filesystem, is_url
from voxmlx.errors import OutputError
from voxmlx.writers import atomic_write, make_folder

_TEMPORARY = ".voxmlx-"
"""Start of the names of files that are being written; :mod:`voxmlx.writers.atomic` has it too."""

_DEAD_S = 60.0
"""A write takes milliseconds; nobody comes back to one that is so old."""

_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "memory"})
"""Protocols where an upload appears whole and a rename would be a copy."""


class Store(Protocol):
    """A folder of small text files; names use ``/``."""

    def names(self) -> set[str]:
        """Files there, without those that are being written."""

    def exists(self, name: str) -> bool:
        """Whether a file is there."""

    def read(self, name: str) -> str:
        """The text of a file."""

    def write(self, name: str, text: str) -> None:
        """Put a file there, whole and for good.

        Raises:
            OutputError: If that fails.
        """

    def remove(self, name: str) -> None:
        """Delete a file if it is there."""


def open_store(place: str) -> Store:
    """The store at a path or URL, made if need be.

    Raises:
        OutputError: If it cannot be made.
    """
    return RemoteStore(place) if is_url(place) else LocalStore(Path(place))


class LocalStore:
    """A folder on this machine, or on a disk that several machines share."""

    def __init__(self, folder: Path):
        make_folder(folder)
        self._folder = folder

    def names(self) -> set[str]:
        """Files there; what writes that were cut short left is deleted."""
        found = set()
        for folder, _, files in os.walk(self._folder):
            for file in files:
                path = Path(folder, file)
                if not file.startswith(_TEMPORARY):
                    found.add(path.relative_to(self._folder).as_posix())
                elif file.endswith(".tmp") and time.time() - path.stat().st_mtime > _DEAD_S:
                    path.unlink(missing_ok=True)
        return found

    def exists(self, name: str) -> bool:
        """Whether a file is there."""
        return (self._folder / name).exists()

    def read(self, name: str) -> str:
        """The text of a file."""
        return (self._folder / name).read_text(encoding="utf-8")

    def write(self, name: str, text: str) -> None:
        """Write beside, sync, rename, and sync the folder that holds the name."""
        path = self._folder / name
        make_folder(path.parent)
        with atomic_write(path) as file:
            file.write(text)
        _sync_folder(path.parent)

    def remove(self, name: str) -> None:
        """Delete a file if it is there."""
        (self._folder / name).unlink(missing_ok=True)


class RemoteStore:
    """A place that fsspec reaches."""

    def __init__(self, url: str):
        self._url = url
        self._files, self._root = filesystem(url)
        protocol = self._files.protocol
        protocols = {protocol} if isinstance(protocol, str) else set(protocol)
        self._puts_whole = bool(protocols & _OBJECT_STORES)
        self._call("makedirs", self._root, exist_ok=True)

    def names(self) -> set[str]:
        """Files there."""
        self._files.invalidate_cache()
        found = self._call("find", self._root)
        names = (path.removeprefix(self._root).lstrip("/") for path in found)
        return {name for name in names if not name.rpartition("/")[2].startswith(_TEMPORARY)}

    def exists(self, name: str) -> bool:
        """Whether a file is there."""
        return bool(self._call("exists", self._path(name)))

    def read(self, name: str) -> str:
        """The text of a file."""
        data: bytes = self._call("cat_file", self._path(name))
        return data.decode()

    def write(self, name: str, text: str) -> None:
        """Upload at once, or beside and rename."""
        path = self._path(name)
        folder, _, last = path.rpartition("/")
        self._call("makedirs", folder, exist_ok=True)
        if self._puts_whole:
            self._call("pipe_file", path, text.encode())
            return
        beside = f"{folder}/{_TEMPORARY}{secrets.token_hex(8)}.tmp"
        self._call("pipe_file", beside, text.encode())
        self._call("mv", beside, path)

    def remove(self, name: str) -> None:
        """Delete a file if it is there."""
        if self.exists(name):
            self._call("rm_file", self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        try:
            return getattr(self._files, method)(*arguments, **options)
        except OSError as error:
            raise OutputError(f"{self._url}: {method} failed: {error}") from error


def _sync_folder(folder: Path) -> None:
    """Make a rename last; a system without that offers it anyway or not at all."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        return
    finally:
        os.close(handle)
