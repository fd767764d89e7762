"""Uploading a converted folder to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from voxmlx.checkpoints.hub import bars_on_terminals_only, first_line, transport_errors
from voxmlx.errors import HubError


def publish(folder: Path, repo: str, private: bool = False) -> str:
    """Upload a folder into a repository, made if missing.

    Args:
        folder: What to upload.
        repo: ``owner/name``.
        private: Make a new repository private.

    Returns:
        The address of the upload.

    Raises:
        HubError: If the hub cannot be reached or refuses.
    """
    # Imported late: it takes longer than all of this package.
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError

    # The client wraps what went wrong with a file in a RuntimeError.
    failures: tuple[type[Exception], ...] = (*transport_errors(), RuntimeError)
    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        with bars_on_terminals_only():
            commit = api.upload_folder(
                repo_id=repo, folder_path=folder, commit_message="Upload MLX weights"
            )
    except HFValidationError as error:
        raise HubError(f"{repo!r}: not a valid repository name (owner/name)") from error
    except failures as error:
        cause = error if error.__cause__ is None else error.__cause__
        raise HubError(f"{repo}: the upload failed: {first_line(cause)}") from error
    return str(commit)
