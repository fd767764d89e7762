"""Device memory of a live session at full size, part by part, late in a long stream.

    voxmlx-convert FOLDER --mlx-path int4 -q --dtype bfloat16
    python benchmarks/memory_live.py --model int4 --minutes 15

The rings are put where ``--minutes`` of audio would have brought them, prompt included, so that
they have their full size; then a session that is two seconds behind catches up there, which is the
largest piece of work it ever does, and re-anchors. The weights may be random.
"""

from __future__ import annotations

import argparse
import time

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from voxmlx.cache.ring import RingKVCache
from voxmlx.pipeline import load
from voxmlx.streaming.session import StreamingSession

RATE = 16000


def nbytes(module: object) -> int:
    """Bytes of a module's arrays."""
    return sum(array.nbytes for _, array in tree_flatten(module.parameters()))  # type: ignore[attr-defined]


def move(cache: RingKVCache, position: int) -> None:
    """Bring a ring to a position as if everything before it had been computed."""
    cache._grow(position)
    laps = (position - cache.reanchor_at) // cache.capacity + 1
    cache.offsets = [position - max(0, laps) * cache.capacity]
    mx.eval(cache.store.buffers)


def catch_up(session: StreamingSession, seconds: float) -> None:
    """Feed noise and decode all of it."""
    rng = np.random.default_rng(0)
    session.feed((0.05 * rng.standard_normal(round(seconds * RATE))).astype(np.float32))
    while session.pending:
        session.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seconds", type=float, default=2.0, help="audio really computed")
    options = parser.parse_args()

    started = time.perf_counter()
    pipeline = load(options.model, dtype="bfloat16")  # what a Mac holds
    model = pipeline.model
    mx.eval(model.parameters())
    print(f"loaded in {time.perf_counter() - started:.0f} s")
    parts = {
        "weights, encoder and adapter": nbytes(model.encoder) + nbytes(model.adapter),
        "weights, decoder": nbytes(model.decoder),
    }
    mx.reset_peak_memory()
    session = pipeline.stream()
    encoder = session._embedder._state.cache
    stream = session._stream._stream
    decoder = stream._decoder._cache
    session._embedder.drop()  # the silence on the left
    (row,) = stream._decoder._rows.values()
    row.known = row.known[-1:]  # the rest of the prompt
    n = round(options.minutes * 60 * 12.5)
    move(encoder, 4 * n)
    move(decoder, n)
    parts["encoder ring"] = encoder.nbytes
    parts["decoder ring"] = decoder.nbytes
    started = time.perf_counter()
    catch_up(session, options.seconds)
    print(f"{len(session.tokens)} tokens in {time.perf_counter() - started:.0f} s")
    peaks = [mx.get_peak_memory()]
    for cache in (encoder, decoder):
        cache.offsets = [2 * cache.capacity + 1]
        cache.reanchor()
    peaks.append(mx.get_peak_memory())
    for name, size in parts.items():
        print(f"{name:30s} {size / 1e9:6.3f} GB")
    print(f"{'sum':30s} {sum(parts.values()) / 1e9:6.3f} GB")
    print(f"{'peak':30s} {peaks[0] / 1e9:6.3f} GB, with re-anchoring {peaks[1] / 1e9:.3f} GB")
    print(f"decoder at position {n}, re-anchored from {decoder.reanchor_at} on")


if __name__ == "__main__":
    main()
