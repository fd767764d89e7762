"""Every error a caller can act on.

::

    VoxmlxError
    ├── AudioError              a recording cannot be read
    ├── CheckpointError         a model folder cannot be loaded or written
    │   ├── ConfigError         its configuration is missing a key or holds an unknown value
    │   └── TokenizerError      its tokenizer file is missing or broken
    ├── HubError                a repository cannot be found or downloaded
    ├── OutputError             a result cannot be written
    ├── MissingExtraError       an optional dependency is not installed (also an ImportError)
    └── SessionClosedError      a session was used after it ended

Misuse of an argument is a ``ValueError`` or ``TypeError`` instead. A message says where, what was
expected, what came, and what to do; it fits one line.
"""

from __future__ import annotations


class VoxmlxError(Exception):
    """The root of all errors of this package."""


class AudioError(VoxmlxError):
    """A recording cannot be read."""


class CheckpointError(VoxmlxError):
    """A model folder cannot be loaded or written."""


class ConfigError(CheckpointError):
    """A configuration lacks a key or holds a value that no supported model has."""


class TokenizerError(CheckpointError):
    """A tokenizer file is missing or broken."""


class HubError(VoxmlxError):
    """A repository cannot be found or downloaded."""


class OutputError(VoxmlxError):
    """A result cannot be written."""


class MissingExtraError(VoxmlxError, ImportError):
    """An optional dependency is not installed.

    Args:
        feature: What needs it, as the sentence's subject ("The microphone").
        extra: Name of the extra that installs it.
    """

    def __init__(self, feature: str, extra: str):
        needed = f'"voxmlx[{extra}]>=0.1"'  # below lies an earlier program of this name
        super().__init__(f"{feature} needs an optional part: pip install {needed}")
        self.extra = extra


class SessionClosedError(VoxmlxError):
    """A session was used after it ended."""
