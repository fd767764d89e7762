"""The safetensors container: checked headers, tensors read when needed, files written as a stream.

Format: https://huggingface.co/docs/safetensors (8 bytes of header length, a JSON header, then the
data without gaps). This module knows nothing of models; names are what the file says.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import mlx.core as mx
import numpy as np

from voxmlx.errors import CheckpointError, OutputError

DTYPES: dict[str, mx.Dtype] = {
    "BOOL": mx.bool_,
    "U8": mx.uint8,
    "I8": mx.int8,
    "U16": mx.uint16,
    "I16": mx.int16,
    "U32": mx.uint32,
    "I32": mx.int32,
    "U64": mx.uint64,
    "I64": mx.int64,
    "F16": mx.float16,
    "BF16": mx.bfloat16,
    "F32": mx.float32,
}
"""Element types that ``mx.load`` reads as what they are."""

_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_MAX_HEADER_BYTES = 100_000_000  # the limit of the reference implementation


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and element type of a tensor, without its data."""

    name: str
    shape: tuple[int, ...]
    dtype: mx.Dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the data."""
        return math.prod(self.shape) * self.dtype.size


@dataclass(frozen=True)
class LazyTensor:
    """A tensor that is read when asked for.

    Attributes:
        spec: What :meth:`read` returns.
        file: Where the data is, for messages.
        read: Gives the data as a lazy array; nothing is kept, so a second call reads again.
    """

    spec: TensorSpec
    file: Path
    read: Callable[[], mx.array]

    def mapped(
        self, name: str, shape: tuple[int, ...], function: Callable[[mx.array], mx.array]
    ) -> LazyTensor:
        """The same data under another name, through a function that keeps the element type."""
        read = self.read
        return LazyTensor(
            TensorSpec(name, shape, self.spec.dtype), self.file, lambda: function(read())
        )


class _LazyFile:
    """Hands out each array of a file once, so that read tensors can be freed."""

    def __init__(self, path: Path):
        self._path = path
        self._arrays: dict[str, mx.array] = {}

    def take(self, name: str) -> mx.array:
        if name not in self._arrays:
            self._arrays = cast("dict[str, mx.array]", mx.load(str(self._path), "safetensors"))
        return self._arrays.pop(name)


def open_safetensors(path: Path) -> dict[str, LazyTensor]:
    """Check a file's header and list its tensors; their data stays on disk.

    Raises:
        CheckpointError: If the file cannot be read, is cut short or is no safetensors file.
    """
    specs = read_header(path)
    source = _LazyFile(path)
    return {
        name: LazyTensor(spec, path, partial(source.take, name)) for name, spec in specs.items()
    }


def read_header(path: Path) -> dict[str, TensorSpec]:
    """Read and check the header of a file.

    Raises:
        CheckpointError: If the file cannot be read, is cut short or is no safetensors file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(8)
            length = int.from_bytes(head, "little")
            if head == b"version ":
                raise CheckpointError(
                    f"{path}: a Git LFS pointer, not the weights; run 'git lfs pull' in its folder"
                )
            if size < 8 or length > min(size - 8, _MAX_HEADER_BYTES):
                raise CheckpointError(
                    f"{path}: not a whole safetensors file: the header should take {length} bytes, "
                    f"the file has {size}; download it again"
                )
            text = file.read(length)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        header = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{path}: the safetensors header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: the safetensors header is not a JSON object")
    header.pop("__metadata__", None)
    return _check_header(path, header, size - 8 - length)


def _check_header(path: Path, header: dict[str, Any], n_data: int) -> dict[str, TensorSpec]:
    specs, ranges = {}, []
    for name, entry in header.items():
        spec, begin, end = _parse_entry(path, name, entry)
        if end > n_data:
            raise CheckpointError(
                f"{path}: tensor {name!r} ends at byte {end} of the data, the file has only "
                f"{n_data}; download it again"
            )
        specs[name] = spec
        ranges.append((begin, end, name))
    position = 0
    for begin, end, name in sorted(ranges):
        if begin != position:
            raise CheckpointError(
                f"{path}: tensor {name!r} starts at byte {begin} of the data, expected {position}"
            )
        position = end
    if position != n_data:
        raise CheckpointError(
            f"{path}: {n_data - position} bytes follow the last tensor; download it again"
        )
    return specs


def _parse_entry(path: Path, name: str, entry: Any) -> tuple[TensorSpec, int, int]:
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path}: the header entry of tensor {name!r} needs dtype, shape and data_offsets, "
            f"got {entry!r}"
        ) from error
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise CheckpointError(
            f"{path}: tensor {name!r} has type {dtype!r}; known types: {', '.join(DTYPES)}"
        )
    numbers = (*shape, begin, end)
    if any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in numbers):
        raise CheckpointError(
            f"{path}: tensor {name!r} has shape {list(shape)!r} and offsets {[begin, end]!r}; "
            "expected integers of at least 0"
        )
    spec = TensorSpec(name, shape, DTYPES[dtype])
    if end - begin != spec.nbytes:
        raise CheckpointError(
            f"{path}: tensor {name!r} of shape {list(shape)} and type {dtype} takes {spec.nbytes} "
            f"bytes, its offsets span {end - begin}"
        )
    return spec, begin, end


def encode_header(specs: Iterable[TensorSpec]) -> bytes:
    """The header, length included, of a file that holds tensors in the given order."""
    header: dict[str, Any] = {"__metadata__": {"format": "mlx"}}
    position = 0
    for spec in specs:
        end = position + spec.nbytes
        header[spec.name] = {
            "dtype": _DTYPE_NAMES[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the data is aligned
    return len(text).to_bytes(8, "little") + text


class SafetensorsWriter:
    """Writes one file tensor by tensor: the header comes first, from the specs alone.

    A file whose writing ended early is cut short, which :func:`read_header` refuses.

    Args:
        path: The new file.
        specs: Every tensor of the file, in the order of writing.

    Raises:
        OutputError: If the file cannot be written.
    """

    def __init__(self, path: Path, specs: Sequence[TensorSpec]):
        self._path = path
        self._specs = list(reversed(specs))
        try:
            self._file: BinaryIO = path.open("wb")
        except OSError as error:
            raise output_error(path, error) from error
        self._write(encode_header(specs))

    def write(self, array: mx.array) -> None:
        """Append the next tensor.

        Raises:
            ValueError: If the tensor is not the one that the header announces.
            OutputError: If the disk is full or fails.
        """
        if not self._specs:
            raise ValueError(f"{self._path}: every announced tensor is already written")
        spec = self._specs.pop()
        if tuple(array.shape) != spec.shape or array.dtype != spec.dtype:
            raise ValueError(
                f"tensor {spec.name!r} must be {spec.shape} {spec.dtype}, "
                f"got {tuple(array.shape)} {array.dtype}"
            )
        self._write(_raw_bytes(array))

    def close(self) -> None:
        """Finish the file.

        Raises:
            ValueError: If announced tensors were not written.
        """
        self._file.close()
        if self._specs:
            raise ValueError(f"{self._path}: tensor {self._specs[-1].name!r} was not written")

    def abort(self) -> None:
        """Close the file as it is, cut short."""
        self._file.close()

    def _write(self, data: bytes | memoryview) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            self.abort()
            raise output_error(self._path, error) from error


def output_error(path: Path, error: OSError) -> OutputError:
    """One line for a file that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(f"{path}: the disk is full; free space and run again")
    return OutputError(f"{path}: cannot be written: {error.strerror or os.strerror(errno.EIO)}")


def _raw_bytes(array: mx.array) -> memoryview:
    flat = mx.contiguous(array).reshape(-1)
    if flat.dtype == mx.bfloat16:  # numpy has no such type
        flat = flat.view(mx.uint16)
    return np.asarray(flat).data.cast("B")
