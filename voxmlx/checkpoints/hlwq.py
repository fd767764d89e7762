"""HLWQ files, in the spellings seen in published repositories.

==================  ==================================================  =======================
spelling            tensors of a module ``a.b``                         codes
==================  ==================================================  =======================
``flat``            ``a__b__packed``, ``a__b__norms``, ``a__b__meta``   bytes, first code high
``dotted``          ``a.b__packed``, ``a.b__norms``, ``a.b__meta``      bytes, first code high
``hlwq-q5``         ``a.b.weight__packed``, ``…__norms``, ``…__meta``   bytes, first code high
``dunder int8``     ``a__b__codes``, ``a__b__norms``                    int8 (out, in)
``polar v4``        ``a.b.codes``, ``a.b.norms``, ``a.b.ct[_scaled]``   int8, or halves of bytes
``polar v5``        the same, five bits packed                          bytes, first code low
``compressed``      ``a.b.weight_packed``, ``a.b.weight_scale``         int32, plain int4
==================  ==================================================  =======================

Each is decoded into the matrix it stands for under the name ``a.b.weight``; the names that remain
are those of an ordinary layout. Shapes come from the norms alone, as ``(out, n_blocks)``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import mlx.core as mx
import numpy as np

from voxmlx.checkpoints.safetensors import LazyTensor, TensorSpec
from voxmlx.errors import CheckpointError
from voxmlx.kernels.bits import Order, unpack_bits
from voxmlx.quantization.hlwq import BLOCK, centroids, decode, looks_shuffled

_CODES = re.compile(r"(__packed|__codes|\.codes)$")
_COMPANION = re.compile(r"(__norms|__meta|\.norms|\.ct|\.ct_scaled)$")
_COMPRESSED = re.compile(r"\.weight_packed$")
_COMPRESSED_PARTS = re.compile(r"\.weight_(scale|shape|zero_point)$")
_CHECKED_CODES = 1 << 16
"""Codes whose distribution is looked at, to notice a wrong bit order."""


@dataclass(frozen=True)
class _Module:
    """One coded matrix as it lies in the file."""

    name: str
    codes: LazyTensor
    norms: LazyTensor
    table: LazyTensor | None
    meta: LazyTensor | None

    @property
    def where(self) -> str:
        return f"{self.codes.file}: tensor {self.codes.spec.name!r}"


def unpack_hlwq(tensors: dict[str, LazyTensor]) -> dict[str, LazyTensor]:
    """Replace coded matrices by the bfloat16 weights they stand for.

    Raises:
        CheckpointError: If a part of a matrix is missing, or parts do not fit.
    """
    coded = [name for name in tensors if _CODES.search(name)]
    compressed = [name for name in tensors if _COMPRESSED.search(name)]
    if not coded and not compressed:
        return tensors
    flat = any(_CODES.sub("", name) and "." not in _CODES.sub("", name) for name in coded)
    out: dict[str, LazyTensor] = {}
    for name, tensor in tensors.items():
        if _CODES.search(name):
            module = _module(name, tensors)
            weight = _decoded(module)
        elif _COMPRESSED.search(name):
            weight = _decompressed(name, tensors)
        elif _is_companion(name, coded, compressed):
            continue
        else:
            plain = name.replace("__", ".") if flat and "." not in name else name
            weight = tensor.mapped(plain, tensor.spec.shape, lambda x: x)
        out[weight.spec.name] = weight
    return out


def _is_companion(name: str, coded: list[str], compressed: list[str]) -> bool:
    if coded and _COMPANION.search(name):
        return True
    return bool(compressed) and _COMPRESSED_PARTS.search(name) is not None


def _module(name: str, tensors: Mapping[str, LazyTensor]) -> _Module:
    stem = _CODES.sub("", name)
    joint = "." if name.endswith(".codes") else "__"
    norms = tensors.get(f"{stem}{joint}norms")
    if norms is None:
        raise CheckpointError(
            f"{tensors[name].file}: tensor {name!r} has no norms {stem + joint + 'norms'!r}"
        )
    if len(norms.spec.shape) != 2:
        raise CheckpointError(
            f"{norms.file}: tensor {norms.spec.name!r} must be (outputs, blocks), "
            f"got {norms.spec.shape}"
        )
    table = tensors.get(f"{stem}.ct_scaled", tensors.get(f"{stem}.ct"))
    plain = stem if "." in stem else stem.replace("__", ".")
    return _Module(
        plain.removesuffix(".weight") + ".weight",
        tensors[name],
        norms,
        table,
        tensors.get(f"{stem}__meta"),
    )


def _decoded(module: _Module) -> LazyTensor:
    rows, n_blocks = module.norms.spec.shape
    columns = _columns(module, rows, n_blocks)
    unpack = _unpacker(module, rows * n_blocks * BLOCK)
    spec = TensorSpec(module.name, (rows, columns), mx.bfloat16)

    def read() -> mx.array:
        codes = unpack(module.codes.read()).reshape(rows, n_blocks, BLOCK)
        table = _table(module, codes)
        bits = max(1, (table.size - 1).bit_length())
        if table.size > 4 and looks_shuffled(codes.reshape(-1)[:_CHECKED_CODES], bits):
            raise CheckpointError(
                f"{module.where} decodes to evenly spread codes: its bits are in another order "
                "than its name says, or the file is damaged"
            )
        norms = module.norms.read()
        if not mx.all(mx.isfinite(norms) & (norms >= 0)).item():
            raise CheckpointError(f"{module.where} has norms that are negative or not finite")
        return decode(codes, norms, columns, table)

    return LazyTensor(spec, module.codes.file, read)


def _columns(module: _Module, rows: int, n_blocks: int) -> int:
    """Inputs of the matrix: what ``meta`` says where it does, else whole blocks."""
    padded = n_blocks * BLOCK
    if module.meta is None:
        return padded
    meta = [int(x) for x in np.array(module.meta.read())]
    if meta[:3] != [rows, n_blocks, BLOCK]:
        raise CheckpointError(
            f"{module.where} has norms for {rows} outputs in {n_blocks} blocks of {BLOCK}, its "
            f"meta says {meta[:3]}"
        )
    columns = meta[4] if len(meta) > 4 else padded
    if not padded - BLOCK < columns <= padded:
        raise CheckpointError(f"{module.where} cannot have {columns} inputs in {n_blocks} blocks")
    return columns


def _unpacker(module: _Module, n_codes: int) -> Callable[[mx.array], mx.array]:
    """How the codes are stored, from their type and number."""
    spec = module.codes.spec
    size = math.prod(spec.shape)
    if size == n_codes:
        return lambda x: x.astype(mx.uint8)
    bits, rest = divmod(8 * size, n_codes)
    if rest or not 2 <= bits <= 6 or spec.dtype not in (mx.uint8, mx.int8):
        raise CheckpointError(
            f"{module.where} of shape {spec.shape} holds no whole number of bits for the {n_codes} "
            "codes that its norms are for"
        )
    if spec.name.endswith("__packed"):
        return partial(_unpack_whole, bits=bits, order="big")
    if bits == 4:
        return _unpack_halves
    return partial(_unpack_whole, bits=bits, order="little")


def _unpack_whole(x: mx.array, bits: int, order: Order) -> mx.array:
    return unpack_bits(x.reshape(-1).astype(mx.uint8), bits, order)


def _unpack_halves(x: mx.array) -> mx.array:
    """Half blocks: the low half of byte ``i`` is code ``i``, the high half code ``64 + i``."""
    halves = x.astype(mx.uint8).reshape(-1, BLOCK // 2)
    return mx.concatenate([halves & 15, halves >> 4], axis=-1)


def _table(module: _Module, codes: mx.array) -> mx.array:
    if module.table is not None:
        scaled = module.table.spec.name.endswith("_scaled")
        return module.table.read().astype(mx.float32) * (BLOCK**0.5 if scaled else 1.0)
    stored = 8 * module.codes.spec.nbytes // codes.size
    bits = stored if stored < 8 else max(2, int(np.array(mx.max(codes))).bit_length())
    return mx.array(centroids(bits))


def _decompressed(name: str, tensors: Mapping[str, LazyTensor]) -> LazyTensor:
    """``compressed-tensors`` int4: value + 8 in nibbles of int32, lowest first, groups along in."""
    stem = name.removesuffix(".weight_packed")
    packed, scales = tensors[name], tensors.get(f"{stem}.weight_scale")
    if scales is None:
        raise CheckpointError(f"{packed.file}: tensor {name!r} has no {stem + '.weight_scale'!r}")
    rows, columns = packed.spec.shape[0], 8 * packed.spec.shape[1]
    if scales.spec.shape[0] != rows or columns % scales.spec.shape[1]:
        raise CheckpointError(
            f"{packed.file}: tensor {name!r} is {rows} by {columns}, its scales are "
            f"{scales.spec.shape}"
        )

    def read() -> mx.array:
        codes = unpack_bits(packed.read().view(mx.uint8), 4, "little").astype(mx.float32) - 8
        groups = codes.reshape(rows, scales.spec.shape[1], -1)
        return (
            (groups * scales.read().astype(mx.float32)[..., None])
            .reshape(rows, columns)
            .astype(mx.bfloat16)
        )

    return LazyTensor(TensorSpec(f"{stem}.weight", (rows, columns), mx.bfloat16), packed.file, read)
