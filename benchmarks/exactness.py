"""Ids of guessing and of batches against the plain greedy loop, on real recordings, in float32.

    python -m benchmarks.exactness MODEL RECORDING... [--widths 2 3 ... 64] [--rows 1 4 32]

The reference is a loop over ``decode_step`` with one position at a time: no row, no batch, no
guess. Prints every difference, and how many streams were equal. Recordings are taken in groups;
``--done`` keeps what groups gave, so that a long run can go on later.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from voxmlx import load
from voxmlx.audio.decode import read_audio
from voxmlx.generation.batch import BatchDecoder
from voxmlx.generation.greedy import TokenStream
from voxmlx.generation.prompt import delay_tokens, right_padding, streaming_prompt
from voxmlx.generation.row import RowOptions, SpecialIds
from voxmlx.generation.step import DecodeState, decode_step
from voxmlx.models.voxtral_realtime import VoxtralRealtime
from voxmlx.streaming.embedder import AudioEmbedder
from voxmlx.tokenizer import Tokenizer


def embed(model: VoxtralRealtime, samples: np.ndarray, n_delay: int) -> mx.array:
    """Audio embeddings of a padded recording, ``(1, n, D)``."""
    embedder = AudioEmbedder(model, 25)
    per_token = model.config.audio.samples_per_token
    embedder.feed(samples)
    embedder.feed(np.zeros(right_padding(len(samples), n_delay, per_token) + 200, np.float32))
    parts = []
    while embedder.n_ready:
        parts.append(embedder.encode())
        mx.eval(parts[-1])
    return mx.concatenate(parts, axis=1)


def plain(model: VoxtralRealtime, audio: mx.array, n_delay: int, ids: SpecialIds) -> list[int]:
    """The plain loop."""
    prompt = streaming_prompt(ids.bos, ids.pad, model.config.n_left_pad_tokens, n_delay)
    state = DecodeState(model.decoder.make_cache(64), model.decoder.conditioning(n_delay))
    n = len(prompt)
    logits = decode_step(model, state, mx.array([prompt]), audio[:, :n], 1)
    found = [int(mx.argmax(logits[0, -1]))]
    for position in range(n, audio.shape[1]):
        if found[-1] == ids.eos:
            break
        part = audio[:, position : position + 1]
        logits = decode_step(model, state, mx.array([[found[-1]]]), part, 1)
        found.append(int(mx.argmax(logits[0, -1])))
    return found


def batched(
    model: VoxtralRealtime, clips: list[mx.array], n_delay: int, ids: SpecialIds, rows: int
) -> list[list[int]]:
    """Rows that join and leave a batch, widths chosen as it likes."""
    decoder = BatchDecoder(model, ids, max_rows=rows)
    waiting = list(enumerate(clips))
    working: dict[int, int] = {}
    found: list[list[int]] = [[] for _ in clips]
    while waiting or working:
        while waiting and len(working) < rows:
            i, audio = waiting.pop(0)
            key = decoder.join(RowOptions(n_delay))
            decoder.add(key, audio)
            working[key] = i
        for key, tokens in decoder.step().items():
            found[working[key]] += [token.id for token in tokens]
        for key in [key for key in working if not decoder.n_ready(key)]:
            decoder.leave(key)
            del working[key]
    return found


def single(
    model: VoxtralRealtime, audio: mx.array, n_delay: int, ids: SpecialIds, width: int | None
) -> list[int]:
    """One stream with ``width`` positions in every pass; ``None`` leaves them to the guesser."""
    stream = TokenStream(model, ids, RowOptions(n_delay, positions_per_pass=width))
    stream.add(audio)
    return [token.id for token in stream.step(10**9)]


class Checker:
    """Compares every way of decoding some recordings with the plain loop.

    Args:
        model: The network.
        tokenizer: Its special ids.
        delays: Milliseconds.
    """

    def __init__(self, model: VoxtralRealtime, tokenizer: Tokenizer, delays: Sequence[int]):
        self._model = model
        self._ids = SpecialIds(tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id)
        self._delays = {delay: delay_tokens(delay, model.config.audio) for delay in delays}
        self._per_token = model.config.audio.samples_per_token

    def group(
        self, clips: Mapping[str, np.ndarray], widths: Sequence[int | None], rows: Sequence[int]
    ) -> dict[str, int]:
        """Decode a group of recordings in every way; prints each difference and counts.

        A recording is encoded once: a longer delay needs more silence behind it, and what was
        encoded before does not change by that.
        """
        counts = {"streams": 0, "equal": 0, "tokens": 0}
        longest = max(self._delays.values())
        whole = [embed(self._model, clip, longest) for clip in clips.values()]
        for delay, n_delay in self._delays.items():
            audio = [rows[:, : rows.shape[1] - longest + n_delay] for rows in whole]
            expected = [plain(self._model, part, n_delay, self._ids) for part in audio]
            counts["tokens"] += sum(map(len, expected))
            ways: dict[str, list[list[int]]] = {}
            for width in widths:
                ways[f"{width or 'chosen'} positions"] = [
                    single(self._model, part, n_delay, self._ids, width) for part in audio
                ]
            for n in rows:
                ways[f"{n} rows"] = batched(self._model, audio, n_delay, self._ids, n)
            for way, found in ways.items():
                for path, one, other in zip(clips, expected, found, strict=True):
                    counts["streams"] += 1
                    counts["equal"] += one == other
                    if one != other:
                        same = (a == b for a, b in zip(one, other, strict=False))
                        at = next((i for i, equal in enumerate(same) if not equal), -1)
                        print(f"{path} at {delay} ms, {way}: differs from token {at} on")
        return counts


def turn(numbers: Sequence[int], n: int, i: int) -> list[int]:
    """``n`` of the numbers, others for every ``i``."""
    return [numbers[(i * n + j) % len(numbers)] for j in range(n)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("recordings", nargs="+")
    parser.add_argument("--delays", type=int, nargs="+", default=[240, 480, 960])
    parser.add_argument("--widths", type=int, nargs="*", default=[2, 4, 8, 16, 32, 64])
    parser.add_argument("--rows", type=int, nargs="*", default=[4, 32])
    parser.add_argument("--each-width", type=int, help="of 2 to 64, so many for each group")
    parser.add_argument("--each-rows", type=int, help="of 1 to 32, so many for each group")
    parser.add_argument("--group", type=int, default=32, help="recordings decoded together")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each recording, at most")
    parser.add_argument("--done", type=Path, help="file of finished groups, to go on from")
    parser.add_argument("--minutes", type=float, help="stop after the group that ends then")
    args = parser.parse_args()
    pipeline: Any = load(args.model, dtype="float32")
    checker = Checker(pipeline.model, pipeline.tokenizer, args.delays)
    done: dict[str, dict[str, int]] = {}
    if args.done is not None and args.done.exists():
        done = json.loads(args.done.read_text())
    started = time.perf_counter()
    for i in range(-(-len(args.recordings) // args.group)):
        paths = args.recordings[i * args.group : (i + 1) * args.group]
        if paths[0] in done:
            continue
        widths: list[int | None] = [*args.widths, None]
        if args.each_width:
            widths += turn([n for n in range(2, 65) if n not in args.widths], args.each_width, i)
        rows = list(args.rows)
        if args.each_rows:
            rows += turn([n for n in range(1, 33) if n not in args.rows], args.each_rows, i)
        clips = {path: read_audio(path)[: round(16000 * args.seconds)] for path in paths}
        done[paths[0]] = {"recordings": len(paths)} | checker.group(clips, widths, rows)
        if args.done is not None:
            args.done.write_text(json.dumps(done, indent=1))
        seconds = time.perf_counter() - started
        print(f"group {i}: {done[paths[0]]}, {seconds:.0f} s", flush=True)
        if args.minutes is not None and seconds > 60 * args.minutes:
            break
    total = {key: sum(counts[key] for counts in done.values()) for key in next(iter(done.values()))}
    print(
        f"{total['equal']} of {total['streams']} streams of {total['recordings']} recordings "
        f"equal; the plain loop gave {total['tokens']} tokens"
    )


if __name__ == "__main__":
    main()
