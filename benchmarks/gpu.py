"""The release's shape on one GPU against voxmlx 0.0.2, in one process, on the same weights.

    python benchmarks/gpu.py --old FOLDER_OF_VOXMLX_0_0_2 --records acceptance.json [--out out.json]

Weights are random, int4 in groups of 64 with bfloat16 scales, so guesses never hold; parts b and c
replay how many did when a trained model read real speech (``record_acceptance.py``). Programs take
turns; each figure is the shortest of its turns. Parts, in the order of ``--parts``:

    k  kernels against MLX's own operations     s  times of one step      e  encoder
    a  one position a pass                      b  a recording            t  the small model
    c  a long recording as rows of a batch      o  voxmlx 0.0.2 on the long recording
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from benchmarks.old_voxmlx import old_generate, old_model
from voxmlx.benchmark import noise
from voxmlx.checkpoints.load import load_model
from voxmlx.generation import batch as batch_module
from voxmlx.generation import row as row_module
from voxmlx.generation.batch import BatchDecoder
from voxmlx.generation.encode import BatchEncoder
from voxmlx.generation.prompt import right_padding
from voxmlx.generation.row import RowOptions, SpecialIds
from voxmlx.generation.step import DecodeState, StepProgram
from voxmlx.kernels import decode
from voxmlx.models import fuse
from voxmlx.models.fuse import prepare_for_inference
from voxmlx.models.random_model import CONFIGS, random_model
from voxmlx.models.voxtral_realtime import VoxtralRealtime
from voxmlx.streaming.embedder import MelQueue
from voxmlx.streaming.files import file_positions

IDS = SpecialIds(bos=1, eos=-1, pad=32)
N_DELAY = 6
UNPACK_ROWS = 512

Report = dict[str, Any]


class Stop(Exception):
    """Ends a run of the old program that takes too long."""


class Replay:
    """Stands in for ``count_right``: gives the recorded numbers, row by row in turn."""

    def __init__(self, record: Report, n_rows: int):
        accepted = record["accepted"]
        self._rows = [self._forever(accepted[i % len(accepted)]) for i in range(n_rows)]
        self._next = 0

    @staticmethod
    def _forever(counts: list[int]) -> Iterator[int]:
        while True:
            yield from counts

    def __call__(self, guesses: list[int], ids: list[int]) -> int:
        """The next recorded number of the next row, as far as there are guesses."""
        row = self._rows[self._next % len(self._rows)]
        self._next += 1
        return min(next(row), len(guesses))


def embed_clips(model: VoxtralRealtime, clips: list[np.ndarray], rows: int) -> list[mx.array]:
    """Audio embeddings of clips, some rows at a time; mel frames are made in threads."""

    def queue_of(clip: np.ndarray) -> MelQueue:
        queue = MelQueue(model.config)
        queue.feed(clip)
        padding = right_padding(len(clip), N_DELAY, model.config.audio.samples_per_token)
        queue.feed(np.zeros(padding + 200, np.float32))
        return queue

    embedded: list[mx.array] = []
    with ThreadPoolExecutor(8) as pool:
        queues = list(pool.map(queue_of, clips))
        for start in range(0, len(clips), rows):
            group = queues[start : start + rows]
            encoder = BatchEncoder(model, file_positions(rows))
            keys = [encoder.join() for _ in group]
            parts: dict[int, list[mx.array]] = {key: [] for key in keys}
            while any(queue.n_positions for queue in group):
                mel = {k: q.take(encoder.max_positions) for k, q in zip(keys, group, strict=True)}
                mel = {key: frames for key, frames in mel.items() if len(frames)}
                for key, audio in encoder.encode(mel).items():
                    parts[key].append(audio)
                mx.eval([parts[key][-1] for key in mel])
            embedded += [mx.concatenate(parts[key], axis=1) for key in keys]
            mx.eval(embedded)
    return embedded


def transcribe_rows(
    model: VoxtralRealtime, clips: list[np.ndarray], positions_per_pass: int | None, rows: int = 1
) -> Report:
    """Mel, encoder and decoder over clips as rows of one batch; ``rows`` are encoded together."""
    started = time.perf_counter()
    options = RowOptions(N_DELAY, positions_per_pass=positions_per_pass)
    decoder = BatchDecoder(model, IDS)
    embedded = embed_clips(model, clips, rows)
    keys = [decoder.join(options) for _ in clips]
    for key, audio in zip(keys, embedded, strict=True):
        decoder.add(key, audio)
    mx.eval(embedded)
    del embedded
    encoded = time.perf_counter()
    ids: list[int] = []
    while any(decoder.n_ready(key) for key in keys):
        ids += [token.id for tokens in decoder.step().values() for token in tokens]
    return {
        "encode_s": encoded - started,
        "decode_s": time.perf_counter() - encoded,
        "tokens": len(ids),
        "passes": decoder.n_passes,
        "ids": ids,
    }


def timed(function: Callable[[], Any], turns: int = 1) -> tuple[float, float, Any]:
    """Shortest time in seconds, peak memory in GB, weights included, and the last result."""
    best, result = float("inf"), None
    mx.clear_cache()
    mx.reset_peak_memory()
    for _ in range(turns):
        started = time.perf_counter()
        result = function()
        best = min(best, time.perf_counter() - started)
    return best, mx.get_peak_memory() / 1e9, result


def use_kernels(model: VoxtralRealtime, on: bool) -> None:
    """Turn this program's own kernels on or off; steps are traced anew."""
    os.environ["VOXMLX_KERNELS"] = "1" if on else "0"
    decode.on_cuda.cache_clear()
    model._step_program = None


class Steps:
    """Steps of one shape, each fed by the one before.

    Args:
        model: The network.
        B: Rows.
        T: Positions of each.
    """

    def __init__(self, model: VoxtralRealtime, B: int, T: int, first: int = 300):
        decoder = model.config.decoder
        cache = model.decoder.make_cache(64, batch_size=B)
        layers = list(model.decoder.conditioning(N_DELAY))
        mx.eval(layers)
        self.state = DecodeState(cache, layers)
        cache.reserve(first + 100)
        cache.offsets = [min(first, cache.capacity - 70)] * B
        self.audio = mx.random.normal((B, T, decoder.dim)).astype(model.dtype)
        self.tokens = mx.zeros((B, T), mx.int32)
        self.program = StepProgram(model)
        self.T = T

    def run(self) -> mx.array:
        """Start one step; the next one waits for its tokens."""
        if self.T == 1:
            self.tokens, logprobs = self.program.greedy(self.state, self.tokens, self.audio)
            mx.async_eval(self.tokens, logprobs)
        else:
            logits = self.program(self.state, self.tokens, self.audio, self.T)
            self.tokens = mx.argmax(logits, axis=-1).astype(mx.int32)
            mx.async_eval(self.tokens)
        self.state.cache.rewind(self.T)
        return self.tokens

    def times(self, n: int) -> Report:
        """Milliseconds of a step: among ``n`` queued ones, the host's share of that, and alone."""
        started = time.perf_counter()
        mx.eval(self.run())
        first = time.perf_counter() - started
        mx.eval(self.run())
        started = time.perf_counter()
        for _ in range(n):
            self.run()
        host = (time.perf_counter() - started) / n
        mx.eval(self.tokens)
        queued = (time.perf_counter() - started) / n
        started = time.perf_counter()
        for _ in range(3):
            mx.eval(self.run())
        alone = (time.perf_counter() - started) / 3
        found = {"queued": queued, "host": host, "alone": alone, "first": first}
        return {name: round(1e3 * s, 2) for name, s in found.items()}


def queued_ms(function: Callable[[], mx.array], n: int = 20) -> float:
    """Milliseconds of a call among ``n`` that wait for the device together."""
    mx.eval(function())
    started = time.perf_counter()
    mx.eval([function() for _ in range(n)])
    return round(1e3 * (time.perf_counter() - started) / n, 3)


def part_k(model: VoxtralRealtime) -> Report:
    """Logits with this program's kernels and with MLX's own operations, on the same tokens."""
    report: Report = {}
    vocabulary = model.config.decoder.vocab_size
    for B in (1, 5):
        seen = []
        for on in (True, False):
            use_kernels(model, on)
            mx.random.seed(1)
            cache = model.decoder.make_cache(64, batch_size=B)
            state, program = (
                DecodeState(cache, model.decoder.conditioning(N_DELAY)),
                StepProgram(model),
            )
            rows = []
            for n in (39, 1, 1, 8, 1, 1, 1):
                tokens = mx.random.randint(0, vocabulary, (B, n)).astype(mx.int32)
                audio = mx.random.normal((B, n, model.config.decoder.dim)).astype(model.dtype)
                logits = program(state, tokens, audio, n)[:, -1].astype(mx.float32)
                mx.eval(logits)
                rows.append(logits)
                if B > 1 and n == 8:
                    cache.rewind([i % 4 for i in range(B)])
            seen.append(mx.stack(rows))
        one, other = seen
        report[f"{B} rows"] = {
            "difference": round((mx.abs(one - other).max() / mx.std(other)).item(), 4),
            "same_choice": mx.mean(mx.argmax(one, -1) == mx.argmax(other, -1)).item(),
        }
    good = all(r["difference"] < 0.5 and r["same_choice"] > 0.5 for r in report.values())
    use_kernels(model, good)
    return report


def part_s(model: VoxtralRealtime, quick: bool) -> Report:
    """Times of one step by shape, with and without the kernels, and of its operations."""
    report: Report = {}
    if quick:
        for B, T in ((1, 1), (64, 1), (1, 32)):
            report[f"{B} x {T}"] = Steps(model, B, T).times(20)
            print("s", B, T, report[f"{B} x {T}"], flush=True)
        return report
    shapes = [(1, n) for n in (1, 2, 4, 8, 16, 32, 64)] + [(32, 1), (64, 1), (32, 2)]
    works = decode.on_cuda()
    for on, chosen in ((works, shapes), (False, [(1, 1), (1, 8), (32, 1)])):
        use_kernels(model, on)
        for B, T in chosen:
            name = f"{B} x {T}{'' if on else ' without kernels'}"
            report[name] = Steps(model, B, T).times(40 if B * T < 8 else 15)
            print("s", name, report[name], flush=True)
    use_kernels(model, works)
    report["1 x 1 at 5000"] = Steps(model, 1, 1, 5000).times(30)
    decoder = model.config.decoder
    layers = model.decoder.layers
    x = mx.random.normal((1, decoder.dim)).astype(model.dtype)
    wide = mx.random.normal((1, 2 * decoder.hidden_dim)).astype(model.dtype)
    heads = mx.random.normal((1, decoder.n_heads * decoder.head_dim)).astype(model.dtype)
    cache = model.decoder.make_cache(64)
    cache.reserve(1024)
    offset = mx.array([700], mx.int32)
    rings = cache.store.buffers["keys"], cache.store.buffers["values"]
    qkv = layers[0].attention._qkv(x)
    operations: dict[str, Callable[[], list[mx.array]]] = {
        "qkv": lambda: [layer.attention._qkv(x) for layer in layers],
        "attention": lambda: [
            decode.attend_one(qkv, k, v, offset, decoder.n_heads, 1e6, 8192)
            for k, v in zip(*rings, strict=True)
        ],
        "o": lambda: [fuse.linear(layer.attention.o_proj, heads) for layer in layers],
        "add_norm, twice": lambda: [
            y for layer in layers * 2 for y in decode.add_norm(x, x, layer.ffn_norm.weight, 1e-5)
        ],
        "gate and up": lambda: [layer.mlp._gate_up(x) for layer in layers],
        "gated": lambda: [decode.gated(wide) for _ in layers],
        "down": lambda: [fuse.linear(layer.mlp.down_proj, decode.gated(wide)) for layer in layers],
        "head": lambda: [model.decoder.logits(x[None])],
    }
    mx.eval(qkv)
    report["operations of a step, ms"] = {}
    for name, operation in operations.items():
        try:
            mx.eval(operation())
            started = time.perf_counter()
            for _ in range(10):
                mx.async_eval(operation())
            mx.synchronize()
            report["operations of a step, ms"][name] = round(
                1e2 * (time.perf_counter() - started), 3
            )
        except Exception as error:
            report["operations of a step, ms"][name] = repr(error)[:200]
    return report


def part_e(model: VoxtralRealtime) -> Report:
    """The encoder: rows, positions, and unpacking matrices for many rows or not."""
    report: Report = {}
    for limit in (fuse.NEVER, UNPACK_ROWS):
        fuse.unpack_from = lambda _, limit=limit: limit
        for rows in (1, 8, 32):
            clips = [noise(24.0 if rows == 1 else 6.0)] * rows
            embed_clips(model, clips, rows)
            t, peak, _ = timed(lambda c=clips, r=rows: mx.eval(embed_clips(model, c, r)), 2)
            seconds = sum(map(len, clips)) / 16000
            name = f"{rows} rows, {'packed' if limit == fuse.NEVER else 'unpacked'}"
            report[name] = {"ms_per_s": round(1e3 * t / seconds, 3), "peak_gb": round(peak, 2)}
            print("e", name, report[name], flush=True)
    mel = mx.random.normal((1, 1200, 128)).astype(model.dtype)
    encoder = model.encoder
    x = mx.random.normal((600, model.config.encoder.dim)).astype(model.dtype)
    mlps = [layer.mlp for layer in encoder.layers]
    state = encoder.make_state(600)
    mx.eval(state.cache.store.buffers)
    index = state.cache.prepare(600)
    mx.eval(index.mask)
    report["12 s, ms"] = {
        "convolutions": queued_ms(
            lambda: encoder.conv2.step(encoder.conv1.step(mel, None)[0], None)[0], 3
        ),
        "feed-forward": queued_ms(lambda: mx.stack([mlp(x)[0, 0] for mlp in mlps]), 3),
        "attention": queued_ms(
            lambda: mx.stack(
                [
                    layer.attention(x, state.cache, i, index)[0, 0]
                    for i, layer in enumerate(encoder.layers)
                ]
            ),
            3,
        ),
    }
    ways = {"packed": fuse.NEVER, "unpacked": UNPACK_ROWS}
    fastest = min(ways, key=lambda way: report[f"8 rows, {way}"]["ms_per_s"])
    report["used"] = fastest
    fuse.unpack_from = lambda _: ways[fastest]
    return report


def decode_only(model: VoxtralRealtime, n: int) -> float:
    """Seconds a position, one position a pass, over ``n`` of them."""
    rows = mx.random.normal((1, n + 39, model.config.decoder.dim)).astype(model.dtype)
    mx.eval(rows)
    decoder = BatchDecoder(model, IDS, max_rows=1)
    key = decoder.join(RowOptions(N_DELAY, positions_per_pass=1))
    decoder.add(key, rows)
    started = time.perf_counter()
    n_tokens = 0
    while decoder.n_ready(key):
        n_tokens += sum(map(len, decoder.step().values()))
    return (time.perf_counter() - started) / n_tokens


def old_decode_only(old: Any, model: VoxtralRealtime, n: int) -> float:
    """The same for voxmlx 0.0.2."""
    rows = mx.random.normal((n + 39, model.config.decoder.dim)).astype(model.dtype)
    mx.eval(rows)
    old.encode = lambda mel: rows
    started = time.perf_counter()
    ids = old_generate(old, np.zeros(1600, np.float32))
    del old.encode
    return (time.perf_counter() - started) / len(ids)


def part_a(model: VoxtralRealtime, old: Any) -> Report:
    """One position a pass, prompt included."""
    ours, theirs = [], []
    for n in (40, 250, 750, 250, 750):
        ours.append((n, 1e3 * decode_only(model, n)))
        theirs.append((n, 1e3 * old_decode_only(old, model, n)))
    best = {n: min(ms for m, ms in ours if m == n) for n in (250, 750)}
    old_best = {n: min(ms for m, ms in theirs if m == n) for n in (250, 750)}
    return {
        "ours_ms": best,
        "old_ms": old_best,
        "ratio": {n: best[n] / old_best[n] for n in best},
        "all": [ours, theirs],
    }


def part_b(model: VoxtralRealtime, old: Any, records: Report, seconds: float) -> Report:
    """A recording of one row: one position a pass, and with the acceptance of each record."""
    clip = noise(seconds)
    report: Report = {}
    real, policy = row_module.count_right, batch_module.pass_overhead
    for turn in range(2):
        t, peak, _ = timed(lambda: old_generate(old, clip))
        report["old"] = {"s": min(t, report.get("old", {}).get("s", t)), "peak_gb": peak}
        for name in ("one_a_pass", *records):
            if name != "one_a_pass":
                row_module.count_right = Replay(records[name][0], 1)
                batch_module.pass_overhead = lambda _, name=name: float(name)
            width = 1 if name == "one_a_pass" else None
            t, peak, last = timed(lambda w=width: transcribe_rows(model, [clip], w))
            row_module.count_right, batch_module.pass_overhead = real, policy
            before = report.get(name, {"s": t, "first_s": t})
            last.pop("ids")
            report[name] = {"s": min(t, before["s"]), "first_s": before["first_s"]}
            report[name] |= {"peak_gb": peak, **last}
            print("b", turn, name, round(t, 3), "old", round(report["old"]["s"], 3), flush=True)
    for name in ("one_a_pass", *records):
        report[name]["times_faster"] = report["old"]["s"] / report[name]["s"]
        report[name]["memory_ratio"] = report[name]["peak_gb"] / report["old"]["peak_gb"]
    return report


def part_c(
    model: VoxtralRealtime, records: Report, minutes: float, rows: list[int], groups: list[int]
) -> Report:
    """A long recording in equal pieces, as rows of one batch; ``groups`` are encoded together."""
    clip = noise(60 * minutes)
    report: Report = {}
    real, policy = row_module.count_right, batch_module.pass_overhead
    for n in rows:
        pieces = list(np.array_split(clip, n))
        for group in groups:
            transcribe_rows(model, [p[: 16000 * 10] for p in pieces], 1, group)  # traces shapes
            t, peak, last = timed(lambda p=pieces, g=group: transcribe_rows(model, p, 1, g))
            last.pop("ids")
            name = f"{n} rows, {group} encoded together"
            report[name] = {"s": t, "peak_gb": peak, **last}
            print("c", name, report[name], flush=True)
        if records:
            name = next(iter(records))
            row_module.count_right = Replay(records[name][1], n)
            batch_module.pass_overhead = lambda _, name=name: float(name) / 2
            t, peak, last = timed(lambda p=pieces: transcribe_rows(model, p, None, groups[0]))
            row_module.count_right, batch_module.pass_overhead = real, policy
            last.pop("ids")
            report[f"{n} rows, replayed"] = {"s": t, "peak_gb": peak, **last}
            print("c replayed", n, report[f"{n} rows, replayed"], flush=True)
    return report


def part_o(old: Any, minutes: float, limit_s: float) -> Report:
    """The old program on the long recording; after ``limit_s`` its last pace is taken on."""
    clip = noise(60 * minutes)
    times: list[float] = []
    run = old.decode

    def counted(*args: Any, **kwargs: Any) -> mx.array:
        times.append(time.perf_counter())
        if times[-1] - started > limit_s:
            raise Stop
        return run(*args, **kwargs)

    old.decode = counted
    mx.clear_cache()
    mx.reset_peak_memory()
    started = time.perf_counter()
    n_positions = len(clip) // 1280 + 17 + 32 - 38
    report: Report = {"positions": n_positions}
    try:
        old_generate(old, clip)
    except Stop:
        recent = min(1000, len(times) - 1)
        pace = (times[-1] - times[-1 - recent]) / recent
        report |= {"stopped_after_positions": len(times), "pace_ms": 1e3 * pace}
        report["s"] = times[-1] - started + pace * (n_positions - len(times))
    else:
        report["s"] = time.perf_counter() - started
    finally:
        del old.decode
    report["encoder_s"] = times[0] - started
    report["peak_gb"] = mx.get_peak_memory() / 1e9
    return report


def part_t(folder: Path, package: str, speech_file: Path) -> Report:
    """A trained model on real recordings, nothing replayed."""
    clip = np.load(speech_file)["samples"].astype(np.float32) / 32768
    report: Report = {"audio_s": len(clip) / 16000}
    for dtype in (mx.float32, mx.float16):
        model = load_model(folder, dtype).model
        old = old_model(package, model)
        prepare_for_inference(model)
        window = model.config.decoder.sliding_window
        transcribe_rows(model, [clip], None)
        guessed, peak, last = timed(lambda m=model: transcribe_rows(m, [clip], None), 2)
        plain, _, one = timed(lambda m=model: transcribe_rows(m, [clip], 1))
        theirs, old_peak, ids = timed(lambda o=old, w=window: old_generate(o, clip, window=w), 2)
        agree = sum(a == b for a, b in zip(last["ids"], one["ids"], strict=True)) / len(ids)
        like_old = sum(a == b for a, b in zip(ids, last["ids"], strict=False)) / len(ids)
        report[str(dtype)] = {
            "guessed_s": guessed,
            "one_a_pass_s": plain,
            "old_s": theirs,
            "times_faster": theirs / guessed,
            "peak_gb": [peak, old_peak],
            **{name: last[name] for name in ("passes", "tokens", "encode_s", "decode_s")},
            "ids_like_one_a_pass": agree,
            "ids_like_old": like_old,
        }
        print("t", report[str(dtype)], flush=True)
    return report


def add_ratios(report: Report) -> None:
    """How parts c and o compare."""
    old = report.get("o", {})
    for part in report.get("c", {}).values():
        if "s" in old and isinstance(part, dict):
            part["times_faster"] = old["s"] / part["s"]
            part["memory_ratio"] = part["peak_gb"] / old["peak_gb"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--old", required=True, help="folder of the package voxmlx 0.0.2")
    parser.add_argument("--records", type=Path, help="of record_acceptance.py")
    parser.add_argument("--size", default="4b", choices=CONFIGS)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rows", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--groups", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--old-limit", type=float, default=60.0, help="seconds for part o")
    parser.add_argument("--trained", type=Path, help="folder of a trained model, for part t")
    parser.add_argument("--speech", type=Path, help="its recording: an .npz of int16 at 16 kHz")
    parser.add_argument("--parts", default="keabcsto")
    parser.add_argument("--quick", action="store_true", help="part s with one shape")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    records = json.loads(args.records.read_text()) if args.records else {}
    started = time.perf_counter()
    model = random_model(CONFIGS[args.size], bits=4)
    prepare_for_inference(model)
    old = old_model(args.old, model)
    mx.clear_cache()
    report: Report = {"weights_gb": mx.get_active_memory() / 1e9}
    print(f"weights {report['weights_gb']:.2f} GB in {time.perf_counter() - started:.1f} s")
    parts: dict[str, Callable[[], Report]] = {
        "k": lambda: part_k(model),
        "s": lambda: part_s(model, args.quick),
        "e": lambda: part_e(model),
        "a": lambda: part_a(model, old),
        "b": lambda: part_b(model, old, records, args.seconds),
        "t": lambda: part_t(args.trained, args.old, args.speech),
        "c": lambda: part_c(model, records, args.minutes, args.rows, args.groups),
        "o": lambda: part_o(old, args.minutes, args.old_limit),
    }
    for part in args.parts:
        started = time.perf_counter()
        print(f"part {part}", flush=True)
        try:
            report[part] = parts[part]()
        except Exception as error:  # one part must not cost the others their time on the device
            report[part] = {"error": repr(error)[:2000]}
            if part == "k":
                use_kernels(model, False)
        report["kernels"] = decode.on_cuda()
        add_ratios(report)
        seconds = time.perf_counter() - started
        print(part, json.dumps(report[part]), f"({seconds:.0f} s)", flush=True)
        if args.out is not None:
            args.out.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
