"""What a checkpoint format is: its tensor names, their arrangement and its configuration.

Inside the package rotary pairs are neighbouring rows and convolutions are ``(out, kernel, in)``.
Formats differ in both; :class:`Layout` maps either way. Which formats exist is in
:mod:`voxmlx.checkpoints.registry`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import mlx.core as mx

from voxmlx.checkpoints.config_file import Section
from voxmlx.checkpoints.names import NameMap, split_layer, split_leaf
from voxmlx.checkpoints.safetensors import LazyTensor
from voxmlx.config import ModelConfig

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of a checkpoint's tensors by internal name."""

KERNEL_SIZE = 3
"""Taps of every convolution; tells ``(out, in, kernel)`` from ``(out, kernel, in)``."""


@dataclass(frozen=True)
class ConfigFormat:
    """One way of writing a configuration.

    Attributes:
        name: For messages.
        matches: Whether a JSON object looks like this format.
        read: Builds the configuration, without its quantisation. Numbers that the format does not
            write are taken from the tensors' shapes.
    """

    name: str
    matches: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Section, Shapes], ModelConfig]


def _no_heads(config: ModelConfig) -> Mapping[str, int]:
    return {}


def _nothing(config: ModelConfig) -> Mapping[str, mx.array]:
    return {}


@dataclass(frozen=True)
class Layout:
    """Names and arrangement of one model's tensors in one format.

    Attributes:
        name: For messages and logs.
        model_type: Key of the network (:mod:`voxmlx.checkpoints.registry`).
        mark: Matches the start of a tensor name that only this layout has.
        names: Module paths, internal and external.
        config_formats: Configurations seen beside such tensors, the usual one first.
        half_split_heads: Heads of each module (with ``{}``) whose rows hold all first elements of
            the rotary pairs before all second ones.
        kernel_last: Whether convolutions are written ``(out, in, kernel)``; both are read.
        aliases: Replacements that bring older spellings of names to the one in ``names``.
        unused: Matches tensors that may be there but carry nothing of their own.
        write_config: Gives the keys of ``config.json``, quantisation apart; ``None`` for a layout
            that is only read.
        common_dtype: Where parts differ in floating-point type on purpose, the type that holds them
            best if they are to be one; a load that names no type leaves each tensor in its own.
        plain_parts: Parts (:func:`voxmlx.quantization.recipes.part_of`) that other readers of the
            format expect in floating point.
        derived: Gives tensors, by external name, that the format stores though the network computes
            them.
    """

    name: str
    model_type: str
    mark: re.Pattern[str]
    names: NameMap
    config_formats: tuple[ConfigFormat, ...]
    half_split_heads: Callable[[ModelConfig], Mapping[str, int]] = _no_heads
    kernel_last: bool = False
    aliases: tuple[tuple[re.Pattern[str], str], ...] = ()
    unused: re.Pattern[str] | None = None
    write_config: Callable[[ModelConfig], dict[str, Any]] | None = None
    plain_parts: frozenset[str] = frozenset()
    derived: Callable[[ModelConfig], Mapping[str, mx.array]] = _nothing
    common_dtype: mx.Dtype | None = None

    def config_format(self, values: Mapping[str, Any]) -> ConfigFormat | None:
        """The format of a configuration that fits this layout; ``None`` if it does not."""
        return next((f for f in self.config_formats if f.matches(values)), None)

    def is_unused(self, name: str) -> bool:
        """Whether a tensor of this name is to be skipped."""
        return self.unused is not None and self.unused.search(name) is not None

    def internal_path(self, path: str) -> str | None:
        """The internal path of a module; ``None`` if it is unknown."""
        for pattern, replacement in self.aliases:
            path = pattern.sub(replacement, path)
        return self.names.to_internal(path)

    def internal_name(self, name: str) -> str | None:
        """The internal name of a tensor; ``None`` if it is unknown."""
        path, leaf = split_leaf(name)
        path_inside = self.internal_path(path)
        return None if path_inside is None else f"{path_inside}.{leaf}"

    def external_name(self, name: str) -> str:
        """The format's name of a tensor given its internal name.

        Raises:
            KeyError: If the model has no such module.
        """
        path, leaf = split_leaf(name)
        path_outside = self.names.to_external(path)
        if path_outside is None:
            raise KeyError(name)
        return f"{path_outside}.{leaf}"

    def to_internal(self, tensor: LazyTensor, name: str, config: ModelConfig) -> LazyTensor:
        """Rename a tensor to its internal ``name`` and put its rows and axes in our order."""
        shape = tensor.spec.shape
        if _is_kernel_last(shape):
            swapped = (shape[0], shape[2], shape[1])
            return tensor.mapped(name, swapped, lambda x: x.swapaxes(1, 2))
        n_heads = self._heads(name, config)
        if n_heads is None:
            return tensor.mapped(name, shape, lambda x: x)
        return tensor.mapped(name, shape, partial(interleave_rows, n_heads=n_heads))

    def to_external(self, tensor: LazyTensor, config: ModelConfig) -> LazyTensor:
        """The inverse of :meth:`to_internal`."""
        name, shape = self.external_name(tensor.spec.name), tensor.spec.shape
        if len(shape) == 3 and self.kernel_last:
            swapped = (shape[0], shape[2], shape[1])
            return tensor.mapped(name, swapped, lambda x: x.swapaxes(1, 2))
        n_heads = self._heads(tensor.spec.name, config)
        if n_heads is None:
            return tensor.mapped(name, shape, lambda x: x)
        return tensor.mapped(name, shape, partial(split_rows, n_heads=n_heads))

    def _heads(self, name: str, config: ModelConfig) -> int | None:
        template, _ = split_layer(split_leaf(name)[0])
        return self.half_split_heads(config).get(template)


def _is_kernel_last(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[2] == KERNEL_SIZE and shape[1] != KERNEL_SIZE


def interleave_rows(x: mx.array, n_heads: int) -> mx.array:
    """Rows of each head from ``[0, 2, 4, ..., 1, 3, 5, ...]`` to ``[0, 1, 2, ...]``."""
    rows = x.shape[0] // (2 * n_heads)
    return x.reshape(n_heads, 2, rows, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def split_rows(x: mx.array, n_heads: int) -> mx.array:
    """The inverse of :func:`interleave_rows`."""
    rows = x.shape[0] // (2 * n_heads)
    return x.reshape(n_heads, rows, 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)
