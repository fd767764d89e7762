"""Device memory of a live session at full size, part by part, late in a long stream.

    python benchmarks/memory_live.py --bits 4 --minutes 15

Weights are random. Weights and rings of the whole network are really held; the rings are put where
``--minutes`` of audio would have brought them. What a step needs beside them is measured where a
session that is some seconds behind catches up, the largest piece of work it ever does, and
re-anchors. A CPU measures that on a network of full width and two layers a stack, as it would take
minutes. With ``--full`` it runs every layer in the way of a GPU: packed products, short calls,
little under way, and convolutions as products, since MLX's own copy their weights in float32 on a
CPU. That takes minutes a position (``--seconds 0.05`` is one).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from voxmlx.cache.ring import RingKVCache
from voxmlx.config import ModelConfig
from voxmlx.models import fuse
from voxmlx.models.fuse import prepare_for_inference
from voxmlx.models.random_model import RELEASE, random_model
from voxmlx.streaming import session as session_module
from voxmlx.streaming.options import StreamOptions
from voxmlx.streaming.session import StreamingSession

RATE = 16000


class Mute:
    """A tokenizer for which no id has text."""

    bos_id, eos_id, pad_id, word_id = 1, 2, 32, 33

    def token_bytes(self, token_id: int) -> bytes:
        """No bytes."""
        return b""


def weight_bytes(module: object) -> int:
    """Bytes of a module's arrays."""
    return sum(array.nbytes for _, array in tree_flatten(module.parameters()))  # type: ignore[attr-defined]


def move(cache: RingKVCache, position: int) -> None:
    """Bring a ring to a position as if everything before it had been computed."""
    cache._grow(position)
    laps = (position - cache.reanchor_at) // cache.capacity + 1
    cache.offsets = [position - max(0, laps) * cache.capacity]
    mx.eval(cache.store.buffers)


def convolve(layer: nn.Conv1d, x: mx.array) -> mx.array:
    """A convolution without padding, as one product."""
    n_taps, stride = layer.weight.shape[1], layer.stride
    n = (x.shape[1] - n_taps) // stride + 1
    steps = [x[:, i : i + (n - 1) * stride + 1 : stride] for i in range(n_taps)]
    rows = mx.concatenate(steps, axis=-1).reshape(x.shape[0] * n, -1)
    y = rows @ layer.weight.reshape(layer.weight.shape[0], -1).T + layer.bias
    return y.reshape(x.shape[0], n, -1)


def open_late(config: ModelConfig, bits: int, kv_bits: int | None, minutes: float) -> tuple:
    """A network, a session in the middle of its stream, and both of its rings."""
    model = random_model(config, bits=bits)
    prepare_for_inference(model)
    mx.eval(model.parameters())
    options = StreamOptions(on_eos="stop", kv_bits=kv_bits)
    session = StreamingSession(model, Mute(), options=options)  # type: ignore[arg-type]
    encoder = session._embedder._state.cache
    decoder = session._stream._stream._decoder._cache
    session._embedder.drop()  # the silence on the left
    (row,) = session._stream._stream._decoder._rows.values()
    row.known = row.known[-1:]  # the rest of the prompt
    session._stream._stream._decoder._decode_state()  # made with the first pass of a stream
    n = round(minutes * 60 * 12.5)
    move(encoder, 4 * n)
    move(decoder, n)
    return model, session, encoder, decoder


def working_memory(
    session: StreamingSession, rings: Sequence[RingKVCache], seconds: float
) -> list[int]:
    """Most bytes beside weights and rings, while catching up and while re-anchoring."""
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    rng = np.random.default_rng(0)
    session.feed((0.05 * rng.standard_normal(round(seconds * RATE))).astype(np.float32))
    while session.pending:
        session.step()
    needs = [mx.get_peak_memory() - before]
    mx.reset_peak_memory()
    for cache in rings:
        cache.offsets = [2 * cache.capacity + 1]
        cache.reanchor()
    return [*needs, mx.get_peak_memory() - before]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--kv-bits", type=int)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--full", action="store_true", help="all layers on a CPU too")
    options = parser.parse_args()
    if options.full:
        session_module.replays = lambda: True
        fuse.unpack_from = lambda dtype: fuse.NEVER
        nn.Conv1d.__call__ = convolve
    arguments = (options.bits, options.kv_bits, options.minutes)
    model, session, *rings = open_late(RELEASE, *arguments)
    parts = {
        "weights, encoder and adapter": weight_bytes(model.encoder) + weight_bytes(model.adapter),
        "weights, decoder": weight_bytes(model.decoder),
        "encoder ring": rings[0].nbytes,
        "decoder ring": rings[1].nbytes,
    }
    held = mx.get_active_memory()
    for name, size in parts.items():
        print(f"{name:30s} {size / 1e9:6.3f} GB")
    print(f"{'sum':30s} {sum(parts.values()) / 1e9:6.3f} GB")
    print(f"{'held by MLX':30s} {held / 1e9:6.3f} GB", flush=True)
    if mx.default_device().type == mx.cpu and not options.full:
        stacks = replace(RELEASE.encoder, n_layers=2), replace(RELEASE.decoder, n_layers=2)
        shallow = replace(RELEASE, encoder=stacks[0], decoder=stacks[1])
        del model, session, rings
        _, session, *rings = open_late(shallow, *arguments)
    step, reanchor = working_memory(session, rings, options.seconds)
    print(f"{'largest step, beside these':30s} {step / 1e9:6.3f} GB")
    print(f"{'re-anchoring, beside these':30s} {reanchor / 1e9:6.3f} GB")
    print(f"{'peak':30s} {(held + max(step, reanchor)) / 1e9:6.3f} GB")


if __name__ == "__main__":
    main()
