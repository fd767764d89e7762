"""From a path or a repository's name to a local folder.

Downloads go through ``huggingface_hub``: its cache, its resuming, its progress bars and its
environment variables (``HF_ENDPOINT``, ``HF_HOME``, ``HF_HUB_OFFLINE``, ``HF_TOKEN``). Only the
files that :mod:`voxmlx.checkpoints.files` names are fetched.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from voxmlx.checkpoints.files import (
    CONFIG_FILE,
    PARAMS_FILE,
    TOKENIZER_FILE,
    files_to_download,
    local_choices,
)
from voxmlx.errors import CheckpointError, HubError

logger = logging.getLogger(__name__)

TIMEOUT_S = 10.0
"""Longest wait for the hub's first answer before the cache is tried."""

TINY = "tiny"
"""Name of the small model inside the package."""

_REPO = re.compile(r"^[\w.-]+/[\w.-]+$")
_ASSETS = Path(__file__).parent.parent / "assets"


def resolve(path_or_repo: str | Path, revision: str | None = None) -> Path:
    """The local folder of a model, downloaded if need be.

    Args:
        path_or_repo: A folder, ``owner/name`` of a repository, or ``tiny``. A folder that exists
            goes before a repository of the same name.
        revision: Branch, tag or commit of the repository; ``None`` is its main branch.

    Raises:
        HubError: If there is no such folder and no repository to be had.
    """
    folder = Path(path_or_repo).expanduser()
    name = str(path_or_repo)
    if name and folder.is_dir():
        return folder
    if name and folder.exists():
        raise HubError(f"{folder}: a file; give the folder that holds it")
    if name == TINY:
        return _ASSETS / TINY
    if isinstance(path_or_repo, Path) or not _REPO.match(name):
        raise HubError(f"{name!r}: no such folder, and not a repository's name (owner/name)")
    return download(name, revision)


def download(repo: str, revision: str | None = None) -> Path:
    """Fetch the files of a model, or find them in the cache when there is no connection.

    Raises:
        HubError: If the repository holds no model, or cannot be reached and is not in the cache.
    """
    # Imported late: it takes longer than all of this package.
    from huggingface_hub import HfApi, constants, errors, snapshot_download

    where = repo if revision is None else f"{repo} at {revision!r}"
    try:
        info = HfApi().model_info(repo, revision=revision, timeout=TIMEOUT_S)
        wanted = files_to_download(file.rfilename for file in info.siblings or [])
        with bars_on_terminals_only():
            return Path(snapshot_download(repo, revision=revision, allow_patterns=wanted))
    except CheckpointError as error:
        raise HubError(f"{where}: {error}") from error
    except errors.HFValidationError as error:
        raise HubError(f"{where}: not a valid repository name") from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise HubError(f"{where}: {_refusal(error)}") from error
    except transport_errors() as error:
        cached = find_cached(repo, revision)
        if cached is not None:
            level = logging.INFO if constants.HF_HUB_OFFLINE else logging.WARNING
            logger.log(level, "%s: using the copy in the cache (%s)", where, first_line(error))
            return cached
        raise HubError(
            f"{where}: not in the cache, and the download failed: {first_line(error)}"
        ) from error


def find_cached(repo: str, revision: str | None = None) -> Path | None:
    """The folder of a model that an earlier download left in the cache, if it is complete."""
    from huggingface_hub import snapshot_download

    small = [CONFIG_FILE, PARAMS_FILE, TOKENIZER_FILE]
    try:
        folder = Path(
            snapshot_download(repo, revision=revision, local_files_only=True, allow_patterns=small)
        )
        local_choices(folder)
    except (OSError, CheckpointError):
        return None
    return folder


@contextmanager
def bars_on_terminals_only() -> Iterator[None]:
    """Keep the hub client's progress bars out of pipes and log files."""
    from huggingface_hub import constants
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    decided = constants.HF_HUB_DISABLE_PROGRESS_BARS is not None  # by the user, in the environment
    if sys.stderr.isatty() or decided or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def transport_errors() -> tuple[type[Exception], ...]:
    """What a download may raise: the hub client's HTTP library has changed between its releases."""
    from huggingface_hub.errors import HfHubHTTPError

    return (OSError, *(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError"))


def _refusal(error: Exception) -> str:
    kind = type(error).__name__
    if kind == "GatedRepoError":
        return "access is not granted; accept its terms on its page, then run 'hf auth login'"
    if kind == "RevisionNotFoundError":
        return "no such branch, tag or commit"
    return "no such repository, or a private one; for that, run 'hf auth login' first"


def first_line(error: BaseException) -> str:
    """What an error says, without the details below."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
