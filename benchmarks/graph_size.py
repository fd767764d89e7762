"""Operations of one decoding step, ours and voxmlx 0.0.2's, as a GPU would run them.

    python benchmarks/graph_size.py FOLDER_OF_VOXMLX_0_0_2

The release's 26 layers at small widths: the number of operations does not depend on widths. A CPU
spells out the norm, the rotation and attention, which are one operation each on a GPU, so they are
counted as one here. Views (reshape, slice, transpose and the like) move nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import Any

import mlx.core as mx

from benchmarks.old_voxmlx import old_model
from voxmlx.benchmark import count_operations
from voxmlx.config import DecoderConfig
from voxmlx.generation.step import DecodeState, decode_step
from voxmlx.models import fuse
from voxmlx.models.fuse import prepare_for_inference
from voxmlx.models.random_model import TINY, random_model


def stand_in() -> None:
    """Make each fused operation of a GPU one node of the graph."""
    mx.fast.rms_norm = lambda x, weight, eps: mx.sin(x)
    mx.fast.rope = lambda x, *args, offset, **kwargs: mx.cos(x)

    def attention(q: mx.array, k: mx.array, v: mx.array, **kwargs: Any) -> mx.array:
        mask = kwargs.get("mask")
        depended = [k, v, mask] if isinstance(mask, mx.array) else [k, v]
        return mx.tanh(mx.depends([q], depended)[0])

    mx.fast.scaled_dot_product_attention = attention


def count(result: mx.array) -> str:
    """Operations that compute, and views, in the graph of a result."""
    return "{} operations, {} views".format(*count_operations(result))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old")
    args = parser.parse_args()
    decoder = DecoderConfig(256, 26, 8, 2, 64, 512, 2048, 8192, ada_dim=32)
    model = random_model(dataclasses.replace(TINY, decoder=decoder), bits=4)
    old = old_model(args.old, model)
    stand_in()
    fuse.MAX_UNPACKED = 0  # as on a GPU

    cache_class = sys.modules["old_voxmlx_package.cache"].RotatingKVCache
    caches = [cache_class(8192) for _ in range(decoder.n_layers)]
    condition = old.time_embedding(mx.array([6], dtype=mx.float32))
    row = mx.zeros((1, 1, decoder.dim), mx.bfloat16)
    for _ in range(2):  # the first one allocates
        mx.eval(condition, [x for c in caches for x in (c.keys, c.values) if x is not None])
        words = old.language_model.embed(mx.array([[5]]))
        token = mx.argmax(old.decode(row + words, condition, None, caches)[0, -1:], axis=-1)
    print("voxmlx 0.0.2:", count(token))

    for name, prepare in (("separate", lambda _: None), ("joined", prepare_for_inference)):
        prepare(model)
        state = DecodeState(model.decoder.make_cache(64), model.decoder.conditioning(6))
        state.cache.offsets = [200]
        mx.eval(state.conditioning, state.cache.store.buffers)
        logits = decode_step(model, state, mx.array([[3]]), row, 1)
        print(f"this program, {name}:", count(mx.argmax(logits, -1)))


if __name__ == "__main__":
    main()
