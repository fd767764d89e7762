"""Reading JSON configuration files key by key, with errors that name the file and the key.

It knows no key of any format; those are in the format files beside it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from voxmlx.errors import CheckpointError, ConfigError

logger = logging.getLogger(__name__)

T = TypeVar("T", int, float, bool, str)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ConfigError: If the file cannot be read or holds no JSON object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a JSON object, got {type(values).__name__}")
    return values


class Section:
    """One JSON object of a configuration file; remembers which keys were asked for.

    Args:
        values: The object.
        where: File, and path of the object in it, for messages.
    """

    def __init__(self, values: Mapping[str, Any], where: str):
        self.values = values
        self.where = where
        self._unread = set(values)

    def __contains__(self, key: str) -> bool:
        """Whether the key is there and not null."""
        return self.values.get(key) is not None

    def section(self, key: str) -> Section:
        """The object under a key.

        Raises:
            ConfigError: If it is missing or no object.
        """
        value = self._take(key)
        if not isinstance(value, Mapping):
            raise ConfigError(f"{self.where}: {key!r} must be a JSON object, got {value!r}")
        return Section(value, f"{self.where}, {key}")

    def get(self, key: str, kind: type[T], default: T | None = None) -> T:
        """The value of a key; ``default`` where it is missing or null.

        Raises:
            ConfigError: If it is missing without a default, or of another type.
        """
        if default is not None and key not in self:
            self._unread.discard(key)
            return default
        value = self._take(key)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return kind(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ConfigError(
                f"{self.where}: {key!r} must be of type {kind.__name__}, got {value!r}"
            )
        return value

    def expect(self, key: str, value: object) -> None:
        """Check a key that may be missing but has only one supported value.

        Raises:
            ConfigError: If it has another value.
        """
        self._unread.discard(key)
        got = self.values.get(key)
        if got is not None and got != value:
            raise ConfigError(f"{self.where}: {key!r} must be {value!r}, got {got!r}")

    def ignore(self, *keys: str) -> None:
        """Mark keys as known and without effect here."""
        self._unread.difference_update(keys)

    def report_unread(self) -> None:
        """Log the keys that nobody asked for."""
        if self._unread:
            names = ", ".join(sorted(self._unread))
            logger.warning("%s: unknown keys have no effect: %s", self.where, names)

    def _take(self, key: str) -> Any:
        self._unread.discard(key)
        if key not in self:
            raise ConfigError(f"{self.where}: key {key!r} is missing")
        return self.values[key]
