"""Marlin int4, as in ``Teaspoon-AI/Voxtral-Mini-4B-INT4-Jetson``.

One ``consolidated.safetensors`` holds the encoder, the adapter, the embedding and the norms under
Mistral's names in bfloat16, and each decoder matrix as ``.B`` (tiles) and ``.s`` (float16 scales)
under Transformers' names with their row order. ``params.json`` is Mistral's.

The decoder then runs in float16, in which the scales are exact, and the rest in bfloat16.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial

import mlx.core as mx
import numpy as np

from voxmlx.checkpoints.layout import Layout
from voxmlx.checkpoints.mistral import MISTRAL_REALTIME, PARAMS, REALTIME, REALTIME_NAMES
from voxmlx.checkpoints.names import NameMap
from voxmlx.checkpoints.safetensors import LazyTensor, TensorSpec
from voxmlx.config import ModelConfig
from voxmlx.errors import CheckpointError
from voxmlx.quantization.marlin import (
    GROUP_SIZE,
    TILE_K,
    ZERO_POINT,
    affine_scales,
    affine_weight,
)

_HF_SPELLING = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
}


def _decoder_path(path: str) -> str:
    for mistral, hf in _HF_SPELLING.items():
        if path == f"layers.{{}}.{mistral}":
            return f"layers.{{}}.{hf}"
    return path


def _heads(config: ModelConfig) -> Mapping[str, int]:
    attention = "decoder.layers.{}.attention"
    return {
        f"{attention}.q_proj": config.decoder.n_heads,
        f"{attention}.k_proj": config.decoder.n_kv_heads,
    }


MARLIN_REALTIME = Layout(
    name="Marlin int4",
    model_type=REALTIME,
    mark=re.compile(r"layers\.\d+\.self_attn\."),
    names=NameMap((inside, _decoder_path(outside)) for inside, outside in REALTIME_NAMES),
    config_formats=(PARAMS,),
    half_split_heads=_heads,
    kernel_last=True,
    unused=MISTRAL_REALTIME.unused,
    common_dtype=mx.float16,
)


def unpack_marlin(tensors: dict[str, LazyTensor]) -> dict[str, LazyTensor]:
    """Replace ``.B`` and ``.s`` by the ``weight``, ``scales`` and ``biases`` they stand for.

    Raises:
        CheckpointError: If one of a pair is missing, or their shapes or types do not fit.
    """
    paths = [name[:-2] for name in tensors if name.endswith(".B")]
    if not paths:
        return tensors
    packed = {f"{path}.{leaf}" for path in paths for leaf in "Bs"}
    lonely = [name for name in tensors if name.endswith(".s") and name not in packed]
    if lonely:
        raise CheckpointError(
            f"{tensors[lonely[0]].file}: tensor {lonely[0]!r} has no '.B' beside it"
        )
    out = {
        name: _in_half(tensor) if name.startswith(("layers.", "norm.")) else tensor
        for name, tensor in tensors.items()
        if name not in packed
    }
    for path in paths:
        out |= _unpack_one(path, tensors)
    return out


def _unpack_one(path: str, tensors: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    tiles, scales = tensors[f"{path}.B"], tensors.get(f"{path}.s")
    where = f"{tiles.file}: tensor {path + '.B'!r}"
    if scales is None:
        raise CheckpointError(f"{where} has no scales {path + '.s'!r}")
    if tiles.spec.dtype != mx.int32 or len(tiles.spec.shape) != 2:
        raise CheckpointError(f"{where} is no matrix of int32 tiles: {tiles.spec}")
    k, n = tiles.spec.shape[0] * TILE_K, tiles.spec.shape[1] // 2
    if scales.spec.shape != (k // GROUP_SIZE, n):
        raise CheckpointError(
            f"{where} of {n} outputs and {k} inputs needs scales of shape {(k // GROUP_SIZE, n)}, "
            f"got {scales.spec.shape}; only groups of {GROUP_SIZE} inputs are known"
        )

    def read_weight() -> mx.array:
        return affine_weight(tiles.read())

    def read_scales(factor: int) -> mx.array:
        values = scales.read()
        if not mx.all(mx.isfinite(values) & (values > 0)).item():
            raise CheckpointError(f"{where} has scales that are not positive; the file is damaged")
        # NumPy has no bfloat16; float32 holds either type, and the way back is exact.
        ordered = mx.array(affine_scales(np.array(values.astype(mx.float32))))
        return (factor * ordered).astype(scales.spec.dtype)

    groups = (n, k // GROUP_SIZE)
    parts: dict[str, tuple[tuple[int, ...], mx.Dtype, Callable[[], mx.array]]] = {
        "weight": ((n, k // 8), mx.uint32, read_weight),
        "scales": (groups, scales.spec.dtype, partial(read_scales, 1)),
        "biases": (groups, scales.spec.dtype, partial(read_scales, -ZERO_POINT)),
    }
    return {
        f"{path}.{part}": LazyTensor(TensorSpec(f"{path}.{part}", shape, dtype), tiles.file, read)
        for part, (shape, dtype, read) in parts.items()
    }


def _in_half(tensor: LazyTensor) -> LazyTensor:
    """A decoder tensor in the float16 of the scales beside it."""
    spec = TensorSpec(tensor.spec.name, tensor.spec.shape, mx.float16)
    return LazyTensor(spec, tensor.file, lambda: tensor.read().astype(mx.float16))
