"""Kernels written for CUDA: when they run, how one starts, and where what they read lies."""

from __future__ import annotations

import functools
import os
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

LEAST_CAPABILITY = 8
"""CUDA's major number of the first devices whose matrix units multiply bfloat16 (Ampere)."""


def device_is_cuda() -> bool:
    """Whether MLX computes on a CUDA device."""
    return mx.cuda.is_available() and mx.default_device().type == mx.gpu


@functools.cache
def on_cuda() -> bool:
    """Whether this program's own kernels run: on CUDA, where ``VOXMLX_KERNELS`` is 1.

    They are no default: what changed since ``tests/kernels`` last passed on a GPU has only run in
    emulation. MLX compiles each of them when a process first uses it, which takes about a second.
    """
    wanted = os.environ.get("VOXMLX_KERNELS", "0") == "1"
    if not (wanted and device_is_cuda()):
        return False
    found = mx.device_info().get("compute_capability_major", LEAST_CAPABILITY)
    return int(found) >= LEAST_CAPABILITY


def on_device(x: mx.array) -> mx.array:
    """A copy made by the device: what the host made lies in its memory, far from every kernel."""
    return x + 0 if on_cuda() else x


def constant(x: npt.NDArray[np.float64]) -> mx.array:
    """Numbers as float32 in the device's own memory; CUDA leaves what comes from NumPy outside."""
    array = mx.array(x.astype(np.float32)) + 0
    mx.eval(array)
    return array


def run(
    name: str,
    text: tuple[str, str],
    inputs: Mapping[str, mx.array],
    outputs: Mapping[str, tuple[Sequence[int], mx.Dtype]],
    constants: Mapping[str, int],
    blocks: tuple[int, int, int],
    threads: int,
    dtype: mx.Dtype,
) -> list[mx.array]:
    """Run a kernel.

    Args:
        name: Its name.
        text: What precedes it, and its body.
        inputs: Arrays by name, as they lie in memory.
        outputs: Shapes and types by name.
        constants: Numbers that it is compiled for; ``dtype`` is ``T`` there.
        blocks: Blocks along each axis.
        threads: Threads of a block.
        dtype: Type of the activations.
    """
    kinds = tuple(str(x.dtype) for x in inputs.values())
    kernel = _kernel(name, text, tuple(inputs), kinds, tuple(outputs))
    arrays: list[mx.array] = kernel(
        inputs=list(inputs.values()),
        template=[("T", dtype), *constants.items()],
        grid=(blocks[0] * threads, blocks[1], blocks[2]),
        threadgroup=(threads, 1, 1),
        output_shapes=[tuple(shape) for shape, _ in outputs.values()],
        output_dtypes=[kind for _, kind in outputs.values()],
    )
    return arrays


@functools.cache
def _kernel(
    name: str,
    text: tuple[str, str],
    inputs: tuple[str, ...],
    kinds: tuple[str, ...],
    outputs: tuple[str, ...],
) -> Any:
    """MLX keeps what it compiled, on disk too, by its name and constants alone."""
    header, source = text
    checksum = zlib.crc32("".join((*text, *kinds)).encode())
    return mx.fast.cuda_kernel(
        name=f"voxmlx_{name}_{checksum:08x}",
        input_names=list(inputs),
        output_names=list(outputs),
        source=source,
        header=header,
        ensure_row_contiguous=False,
    )
