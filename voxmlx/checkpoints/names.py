"""Two-way maps between the module names of a format and the names of :mod:`voxmlx.models`.

A name here is a module path; what follows its last dot (``weight``, ``bias``, ``scales``,
``biases``) is the same on both sides. ``{}`` stands for the number of a layer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_LAYER = re.compile(r"(?:^|\.)(?:transformer_)?layers\.(\d+)\.")


class NameMap:
    """Pairs of module paths, internal and external.

    Args:
        pairs: ``(internal, external)``, each with ``{}`` for the layer or without.

    Raises:
        ValueError: If a path occurs twice on one side.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]]):
        pairs = list(pairs)
        self._external = dict(pairs)
        self._internal = {external: internal for internal, external in pairs}
        if len(self._external) < len(pairs) or len(self._internal) < len(pairs):
            raise ValueError("a module path occurs twice in a name map")

    def to_internal(self, path: str) -> str | None:
        """The internal path of an external one; ``None`` if it is unknown."""
        return _translate(path, self._internal)

    def to_external(self, path: str) -> str | None:
        """The external path of an internal one; ``None`` if it is unknown."""
        return _translate(path, self._external)


def _translate(path: str, table: dict[str, str]) -> str | None:
    template, number = split_layer(path)
    found = table.get(template)
    return None if found is None else found.replace("{}", number)


def split_layer(path: str) -> tuple[str, str]:
    """Split off the layer: ``a.layers.3.b`` -> ``("a.layers.{}.b", "3")``, number "" if none."""
    match = _LAYER.search(path)
    if match is None:
        return path, ""
    start, end = match.span(1)
    return f"{path[:start]}{{}}{path[end:]}", match.group(1)


def split_leaf(name: str) -> tuple[str, str]:
    """Split a tensor name into module path and what follows the last dot."""
    path, _, leaf = name.rpartition(".")
    return path, leaf
