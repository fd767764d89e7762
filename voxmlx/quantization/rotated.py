"""Layers whose packed matrix is rotated: they rotate their input, or what they look up, likewise.

The rotation is orthogonal and its own inverse, so ``(W H) (H x) = W x``; only what is lost by
packing changes. It is one small operation on the activations, shared where several matrices read
the same input (:mod:`voxmlx.models.fuse`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from voxmlx.config import QuantizationConfig
from voxmlx.kernels.hadamard import block_hadamard
from voxmlx.quantization.modes import ROTATED, native_arguments


class RotatedLinear(nn.QuantizedLinear):
    """A packed linear layer with rotated inputs."""

    def __call__(self, x: mx.array) -> mx.array:
        """Map rows, ``(n, in) -> (n, out)``."""
        return super().__call__(block_hadamard(x))


class RotatedEmbedding(nn.QuantizedEmbedding):
    """A packed embedding with rotated rows."""

    def __call__(self, x: mx.array) -> mx.array:
        """Look ids up, ``(...) -> (..., D)``."""
        return block_hadamard(super().__call__(x))

    def as_linear(self, x: mx.array) -> mx.array:
        """Map rows, ``(n, D) -> (n, vocab)``."""
        return super().as_linear(block_hadamard(x))


_ROTATED = {nn.QuantizedLinear: RotatedLinear, nn.QuantizedEmbedding: RotatedEmbedding}


def quantize_modules(model: nn.Module, settings: Mapping[str, QuantizationConfig]) -> None:
    """Pack the modules at some paths; the others stay as they are.

    Args:
        model: Changed in place.
        settings: By module path.
    """

    def arguments(path: str, module: nn.Module) -> bool | dict[str, Any]:
        return native_arguments(settings[path]) if path in settings else False

    rotated = [path for path, setting in settings.items() if setting.mode == ROTATED]
    for path in rotated:
        module = _find(model, path)
        module.weight = block_hadamard(module.weight.astype(mx.float32)).astype(module.weight.dtype)
    nn.quantize(model, class_predicate=arguments)
    for path in rotated:
        module = _find(model, path)
        module.__class__ = _ROTATED[type(module)]


def setting_of(module: nn.Module) -> QuantizationConfig | None:
    """How a module is packed; ``None`` for one that is not."""
    if not isinstance(module, nn.QuantizedLinear | nn.QuantizedEmbedding):
        return None
    rotated = isinstance(module, RotatedLinear | RotatedEmbedding)
    return QuantizationConfig(module.bits, module.group_size, ROTATED if rotated else module.mode)


def _find(model: nn.Module, path: str) -> Any:
    module: Any = model
    for key in path.split("."):
        module = module[int(key)] if key.isdigit() else getattr(module, key)
    return module
