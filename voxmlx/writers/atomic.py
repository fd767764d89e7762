"""Files that are either complete or absent."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from voxmlx.errors import OutputError


def output_error(path: str | Path, error: OSError) -> OutputError:
    """Describe a failed write of ``path``."""
    return OutputError(f"{path}: cannot be written: {error.strerror or error}")


def make_folder(path: str | Path) -> None:
    """Make a folder and those above it, where they are missing.

    Raises:
        OutputError: If that cannot be done, or something else has its name.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise OutputError(f"{path}: is not a folder; give another one") from error
    except OSError as error:
        raise output_error(path, error) from error


@contextmanager
def atomic_write(path: str | Path) -> Iterator[TextIO]:
    """Open a text file that appears under its name only when everything was written.

    The text goes to a hidden file beside it first, so a crash or a full disk leaves an earlier file
    of that name as it was. Devices and pipes are written directly; links are followed.

    Raises:
        OutputError: If the file cannot be written.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        temporary = target
    else:
        temporary = target.with_name(f".voxmlx-{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            if temporary is not target:
                os.fsync(file.fileno())
        if temporary is not target:
            os.replace(temporary, target)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        if temporary is not target:
            temporary.unlink(missing_ok=True)
