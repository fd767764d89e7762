"""Compiling CUDA text with NVRTC, the compiler that comes with MLX, once for all processes.

``mx.fast.cuda_kernel`` puts headers of MLX before each kernel whose reading takes longer than all
else, and forgets what it compiled when the process ends. The kernels of this program need CUDA's
two headers of 16-bit numbers only; what was compiled is kept in the user's cache folder.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx

logger = logging.getLogger(__name__)

PREFIX = """#include <cuda_bf16.h>
#include <cuda_fp16.h>
"""

LIBRARIES = ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so")


def lacks() -> str | None:
    """What is missing for compiling, if anything is."""
    try:
        _nvrtc()
    except RuntimeError as error:
        return str(error)
    return None if _include_folders() else "CUDA's headers (cuda_bf16.h); set CUDA_HOME"


def compile_cuda(text: str) -> bytes:
    """Machine code of the current device for a CUDA text, from the cache where it is there.

    Args:
        text: Source without includes; its kernels are ``extern "C"``.

    Raises:
        RuntimeError: If the text does not compile, or there is no compiler.
    """
    info = mx.device_info()
    target = f"sm_{info['compute_capability_major']}{info['compute_capability_minor']}"
    source = PREFIX + text
    digest = hashlib.sha256("\0".join((target, _version(), source)).encode()).hexdigest()
    kept = cache_folder() / f"{digest[:40]}.cubin"
    try:
        return kept.read_bytes()
    except OSError:
        pass
    code = compile_for(source, target)
    try:
        _write(kept, code)
    except OSError as error:
        logger.debug("%s: not kept: %s", kept, error)
    return code


def cache_folder() -> Path:
    """Where compiled kernels are kept: ``voxmlx/kernels`` in the user's cache folder."""
    given = os.environ.get("XDG_CACHE_HOME")
    return (Path(given) if given else Path.home() / ".cache") / "voxmlx" / "kernels"


def compile_for(source: str, target: str) -> bytes:
    """Machine code of a target such as ``sm_90``.

    Raises:
        RuntimeError: If the text does not compile, or there is no compiler.
    """
    nvrtc, program = _nvrtc(), ctypes.c_void_p()
    options = [f"--gpu-architecture={target}".encode()]
    options += [f"--include-path={folder}".encode() for folder in _include_folders()]
    arguments = (ctypes.c_char_p * len(options))(*options)
    _check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), None, 0, None, None))
    try:
        result = nvrtc.nvrtcCompileProgram(program, len(options), arguments)
        if result:
            log = _get(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
            said = log.decode(errors="replace").strip("\0\n")
            raise RuntimeError(f"a CUDA kernel does not compile for {target}: {said}")
        return _get(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _get(size_of: Callable[..., int], get: Callable[..., int], program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    _check(size_of(program, ctypes.byref(size)))
    data = ctypes.create_string_buffer(size.value)
    _check(get(program, data))
    return data.raw


def _check(result: int) -> None:
    if result:
        raise RuntimeError(f"NVRTC answered with error {result}")


@functools.cache
def _nvrtc() -> ctypes.CDLL:
    """The library; MLX has loaded it, so its name is enough."""
    for name in LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise RuntimeError(f"no CUDA compiler: expected one of {', '.join(LIBRARIES)} beside MLX")


@functools.cache
def _version() -> str:
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(_nvrtc().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return f"{major.value}.{minor.value}"


@functools.cache
def _include_folders() -> tuple[str, ...]:
    """Where CUDA's headers lie: the places in which MLX looks for them."""
    packages = Path(mx.__file__).parents[1] / "nvidia"
    places = [*packages.glob("cu*/include"), *packages.glob("cuda_runtime/include")]
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    places += [Path(home) / "include" for home in homes if home]
    return tuple(str(place) for place in places if (place / "cuda_bf16.h").exists())


def _write(path: Path, data: bytes) -> None:
    """Write whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
