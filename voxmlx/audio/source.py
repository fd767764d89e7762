"""Turn what a caller calls a recording into a seekable binary file.

A recording is a path, ``-`` for standard input, bytes, or an open binary file. Decoders need to
seek (an MP4 may keep its index at the end), so what cannot seek is copied to a temporary file that
has no name and vanishes with its last handle. Knows nothing of what the bytes mean.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import sys
import tempfile
from typing import Any, BinaryIO

from voxmlx.errors import AudioError

FileSource = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO

STDIN = "-"

_COPY_BYTES = 1 << 20


class SteadyFile:
    """A binary file for C libraries: their impossible seeks return -1 instead of raising.

    An exception in a callback would be printed to standard error and lost. The file has no
    ``name``, so that no library judges the content by an extension.
    """

    def __init__(self, file: BinaryIO):
        self._file = file

    def read(self, size: int = -1) -> bytes:
        """Read up to ``size`` bytes."""
        return self._file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move, and return the new position or -1."""
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return -1

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()


def describe(source: Any) -> str:
    """Name a source of any kind for a message, on one line."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"{len(source)} bytes"
    if isinstance(source, (str, os.PathLike)):
        name = os.fsdecode(source)
        if name == STDIN:
            return "standard input"
        return name if name.isprintable() and name else repr(name)
    if hasattr(source, "shape") and hasattr(source, "dtype"):
        return f"array {tuple(source.shape)}"
    file_name = getattr(source, "name", None)
    return describe(file_name) if isinstance(file_name, str) else f"{type(source).__name__} object"


def open_file(source: object) -> BinaryIO:
    """Open a source for reading from its start, unbuffered and seekable.

    Args:
        source: One of :data:`FileSource`. A file opened by the caller is not closed but loses its
            position.

    Raises:
        AudioError: If there is no such file, or it cannot be read.
        TypeError: If ``source`` is none of the kinds above, or a file opened as text.
    """
    name = describe(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return io.BytesIO(source)
    try:
        if isinstance(source, (str, os.PathLike)):
            path = os.fsdecode(source)
            return _open_handle(_stdin()) if path == STDIN else _open_path(path, name)
        if hasattr(source, "read"):
            return _open_handle(source)
    except OSError as error:
        raise AudioError(f"{name}: {_reason(error)}") from error
    raise TypeError(
        "audio must be a path, bytes, a binary file or an array with sample_rate=, "
        f"got {type(source).__name__}"
    )


def _stdin() -> BinaryIO:
    if sys.stdin is None or sys.stdin.isatty():
        raise AudioError("standard input: holds no recording; pipe one in, as in: cat talk.mp3 | …")
    return sys.stdin.buffer


def _open_path(path: str, name: str) -> BinaryIO:
    if "\0" in path:
        raise AudioError(f"{name}: no such file; a path cannot hold a zero byte")
    with open(path, "rb", buffering=0) as file:
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            raise AudioError(f"{name}: is a device; give a recording")
        return _open_handle(file)


def _open_handle(source: Any) -> BinaryIO:
    """Open what an open file holds: again if it lies on disk, else a copy of it."""
    if isinstance(source, io.BytesIO):
        return io.BytesIO(source.getvalue())
    if isinstance(source.read(0), str):
        raise TypeError("audio files must be opened in binary mode, got a text file")
    if isinstance(getattr(source, "raw", source), io.FileIO):
        if source.writable():
            source.flush()
        if stat.S_ISREG(os.fstat(source.fileno()).st_mode):
            return _duplicate(source.fileno())
    with contextlib.suppress(AttributeError, OSError, ValueError):  # a pipe starts where it is
        source.seek(0)
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(source, copy, _COPY_BYTES)
        copy.flush()
        return _duplicate(copy.fileno())


def _duplicate(descriptor: int) -> BinaryIO:
    file = os.fdopen(os.dup(descriptor), "rb", buffering=0)
    file.seek(0)
    return file


def _reason(error: OSError) -> str:
    """Say what an operating system error means for the caller."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, IsADirectoryError):
        return "is a folder; give the recordings in it"
    if isinstance(error, PermissionError):
        return "may not be read; check its permissions"
    return f"cannot be read: {error.strerror or error}"
