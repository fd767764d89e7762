"""URLs of other filesystems, through fsspec. Known are only the calls that batches need."""

from __future__ import annotations

import re
from typing import Any

from voxmlx.errors import MissingExtraError, VoxmlxError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(::[A-Za-z0-9+.-]+)*://")


class RemoteError(VoxmlxError):
    """A filesystem cannot be reached."""


def is_url(text: str) -> bool:
    """Whether a text names another filesystem, as ``s3://bucket/folder`` does."""
    return _URL.match(text) is not None


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec filesystem of a URL, and the path inside it.

    Raises:
        MissingExtraError: If fsspec or the part of it for this protocol is not installed.
        RemoteError: If the URL is not understood.
    """
    try:
        import fsspec
    except ModuleNotFoundError as error:
        raise MissingExtraError("Reading and writing URLs", "ray") from error
    try:
        files, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise RemoteError(f"{url}: {error}") from error
    except ValueError as error:
        raise RemoteError(f"{url}: not a URL that fsspec knows ({error})") from error
    return files, path
