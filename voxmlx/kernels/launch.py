"""Kernels written for CUDA: when they run, how one starts, and where what they read lies."""

from __future__ import annotations

import functools
import logging
import os
import zlib
from collections.abc import Mapping, Sequence

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from voxmlx.kernels import compiler

logger = logging.getLogger(__name__)

LEAST_CAPABILITY = 8
"""CUDA's major number of the first devices whose matrix units multiply bfloat16 (Ampere)."""


def device_is_cuda() -> bool:
    """Whether MLX computes on a CUDA device."""
    return mx.cuda.is_available() and mx.default_device().type == mx.gpu


KINDS = {
    **{mx.bfloat16: "__nv_bfloat16", mx.float16: "__half", mx.float32: "float"},
    **{mx.int32: "int", mx.uint32: "unsigned", mx.uint8: "unsigned char"},
}
"""CUDA's names of the types that kernels take."""


@functools.cache
def on_cuda() -> bool:
    """Whether this program's own kernels run: on CUDA, unless ``VOXMLX_KERNELS`` is 0.

    Each is compiled when it is first used, in a few tenths of a second, and kept.
    """
    wanted = os.environ.get("VOXMLX_KERNELS", "1") != "0"
    if not (wanted and device_is_cuda()):
        return False
    found = mx.device_info().get("compute_capability_major", LEAST_CAPABILITY)
    if int(found) < LEAST_CAPABILITY:
        return False
    missing = compiler.lacks()
    if missing is not None:
        logger.warning("kernels of this program are off, which makes CUDA slower: %s", missing)
    return missing is None


def on_device(x: mx.array) -> mx.array:
    """A copy made by the device: what the host made lies in its memory, far from every kernel.

    A sum with 0 would do; but in a trace MLX compiles that for seconds.
    """
    return mx.maximum(x, x) if on_cuda() else x


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
    full_name, code = _compiled(name, whole_text(text, inputs, outputs, constants, threads, dtype))
    sizes = [n for shape in _shapes_read(text, inputs).values() for n in shape]
    arrays: list[mx.array] = mx.fast.precompiled_cuda_kernel(
        name=full_name,
        compiled_source=code,
        inputs=list(inputs.values()),
        output_shapes=[tuple(shape) for shape, _ in outputs.values()],
        output_dtypes=[kind for _, kind in outputs.values()],
        scalars=sizes,
        grid=(blocks[0] * threads, blocks[1], blocks[2]),
        threadgroup=(threads, 1, 1),
    )
    return arrays


def _shapes_read(
    text: tuple[str, str], inputs: Mapping[str, mx.array]
) -> dict[str, tuple[int, ...]]:
    """Shapes of the inputs whose shape the body reads, as ``NAME_shape``."""
    return {name: x.shape for name, x in inputs.items() if f"{name}_shape[" in text[1]}


def whole_text(
    text: tuple[str, str],
    inputs: Mapping[str, mx.array],
    outputs: Mapping[str, tuple[Sequence[int], mx.Dtype]],
    constants: Mapping[str, int],
    threads: int,
    dtype: mx.Dtype,
) -> str:
    """The whole text of a kernel, whose own name is ``NAME`` in it."""
    header, body = text
    given = [f"const {KINDS[x.dtype]}* {key}" for key, x in inputs.items()]
    given += [f"{KINDS[kind]}* {key}" for key, (_, kind) in outputs.items()]
    lines = [f"  using T = {KINDS[dtype]};"]
    lines += [f"  constexpr int {key} = {value};" for key, value in constants.items()]
    for key, shape in _shapes_read(text, inputs).items():
        sizes = [f"{key}_size_{i}" for i in range(len(shape))]
        given += [f"int {size}" for size in sizes]
        lines.append(f"  const int {key}_shape[] = {{{', '.join(sizes)}}};")
    start = f'extern "C" __global__ void __launch_bounds__({threads}) NAME('
    return "\n".join([header, f"{start}{', '.join(given)}) {{", *lines, body, "}"])


@functools.cache
def _compiled(name: str, text: str) -> tuple[str, bytes]:
    """A kernel's name, by which MLX keeps what it has loaded, and its machine code."""
    full_name = f"voxmlx_{name}_{zlib.crc32(text.encode()):08x}"
    return full_name, compiler.compile_cuda(text.replace("NAME(", f"{full_name}(", 1))
