"""The release's shape on one GPU against voxmlx 0.0.2, in one process, on the same weights.

    python benchmarks/gpu.py --old FOLDER_OF_VOXMLX_0_0_2 --record acceptance.json [--out out.json]

Weights are random, int4 in groups of 64 with bfloat16 scales, so guesses never hold; parts b and c
replay how many did when a trained model read real speech (``record_acceptance.py``). Programs take
turns; each figure is the shortest of its turns.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from benchmarks.old_voxmlx import old_generate, old_model
from voxmlx.benchmark import noise
from voxmlx.checkpoints.load import load_model
from voxmlx.generation import row as row_module
from voxmlx.generation.batch import BatchDecoder
from voxmlx.generation.encode import BatchEncoder
from voxmlx.generation.prompt import right_padding
from voxmlx.generation.row import RowOptions, SpecialIds
from voxmlx.generation.step import DecodeState, decode_step, step_program
from voxmlx.models import fuse
from voxmlx.models.fuse import prepare_for_inference
from voxmlx.models.random_model import CONFIGS, random_model
from voxmlx.models.voxtral_realtime import VoxtralRealtime
from voxmlx.streaming.embedder import MelQueue

UNPACK_FROM = fuse.unpack_from
IDS = SpecialIds(bos=1, eos=-1, pad=32)
N_DELAY = 6
ENCODE_POSITIONS = 150

Report = dict[str, Any]


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


def transcribe_rows(
    model: VoxtralRealtime, clips: list[np.ndarray], positions_per_pass: int | None
) -> Report:
    """Mel, encoder and decoder over clips as rows of one batch."""
    options = RowOptions(N_DELAY, positions_per_pass=positions_per_pass)
    decoder = BatchDecoder(model, IDS)
    encoder = BatchEncoder(model, ENCODE_POSITIONS if len(clips) == 1 else 25)
    queues, rows = [], []
    for clip in clips:
        queue = MelQueue(model.config)
        queue.feed(clip)
        padding = right_padding(len(clip), N_DELAY, model.config.audio.samples_per_token)
        queue.feed(np.zeros(padding + 200, np.float32))
        queues.append(queue)
        rows.append((encoder.join(), decoder.join(options)))
    started = time.perf_counter()
    while any(queue.n_positions for queue in queues):
        mel = {r[0]: q.take(encoder.max_positions) for r, q in zip(rows, queues, strict=True)}
        mel = {key: frames for key, frames in mel.items() if len(frames)}
        for key, audio in encoder.encode(mel).items():
            decoder.add(next(d for e, d in rows if e == key), audio)
            mx.async_eval(audio)
    encoded = time.perf_counter()
    ids: list[int] = []
    while any(decoder.n_ready(d) for _, d in rows):
        ids += [token.id for tokens in decoder.step().values() for token in tokens]
    return {
        "encode_s": encoded - started,
        "decode_s": time.perf_counter() - encoded,
        "tokens": len(ids),
        "passes": decoder.n_passes,
        "ids": ids,
    }


def timed(function: Callable[[], Any], turns: int = 1) -> tuple[float, float, Any]:
    """Shortest time in seconds, peak memory in GB above nothing, and the last result."""
    best, result = float("inf"), None
    mx.clear_cache()
    mx.reset_peak_memory()
    for _ in range(turns):
        started = time.perf_counter()
        result = function()
        best = min(best, time.perf_counter() - started)
    return best, mx.get_peak_memory() / 1e9, result


def decode_only(model: VoxtralRealtime, n: int) -> float:
    """Seconds a position, one position a pass, over ``n`` of them."""
    rows = mx.random.normal((1, n + 39, model.config.decoder.dim)).astype(model.dtype)
    mx.eval(rows)
    decoder = BatchDecoder(model, IDS, max_rows=1)
    key = decoder.join(RowOptions(N_DELAY, positions_per_pass=1))
    decoder.add(key, rows[:, :40])
    decoder.step()
    decoder.add(key, rows[:, 40:])
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


def queued_ms(function: Callable[[], mx.array], n: int = 10) -> float:
    """Milliseconds of a call among ``n`` that wait for the device together."""
    mx.eval(function())
    started = time.perf_counter()
    mx.eval([function() for _ in range(n)])
    return 1e3 * (time.perf_counter() - started) / n


def part_p(model: VoxtralRealtime) -> Report:
    """Times of the parts, to choose between ways of computing them."""
    decoder = model.config.decoder
    report: Report = {}
    mlp = model.decoder.layers[0].mlp
    for rows in (1, 4, 8, 16, 32, 64, 256):
        x = mx.random.normal((rows, decoder.dim)).astype(model.dtype)
        times = []
        for limit in (fuse.NEVER, 1):
            fuse.unpack_from = lambda _, limit=limit: limit
            times.append(round(queued_ms(lambda x=x: mlp(x)), 3))
        report[f"mlp {rows} rows, packed and unpacked"] = times
    fuse.unpack_from = UNPACK_FROM
    shape = (1, decoder.n_kv_heads, 512, decoder.head_dim)
    k, v = (mx.random.normal(shape).astype(model.dtype) for _ in range(2))
    mask = mx.ones((1, 1, 1, 512)) > 0
    q = mx.random.normal((1, decoder.n_heads, 1, decoder.head_dim)).astype(model.dtype)
    folded = q.reshape(1, decoder.n_kv_heads, -1, decoder.head_dim)
    attend = mx.fast.scaled_dot_product_attention
    report["attention plain, masked, folded and masked"] = [
        round(queued_ms(lambda: attend(q, k, v, scale=0.1)), 3),
        round(queued_ms(lambda: attend(q, k, v, scale=0.1, mask=mask)), 3),
        round(queued_ms(lambda: attend(folded, k, v, scale=0.1, mask=mask)), 3),
    ]
    program = step_program(model)
    for B, T in ((1, 1), (1, 4), (1, 8), (1, 16), (1, 32), (32, 1), (64, 1), (32, 4)):
        cache = model.decoder.make_cache(64, batch_size=B)
        state = DecodeState(cache, model.decoder.conditioning(N_DELAY))
        cache.offsets = [300 + i for i in range(B)]
        tokens = mx.zeros((B, T), mx.int32)
        audio = mx.random.normal((B, T, decoder.dim)).astype(model.dtype)

        def run(step: Callable[..., mx.array]) -> mx.array:
            logits = step(state, tokens, audio, T)  # noqa: B023
            state.cache.rewind(T)  # noqa: B023
            return mx.argmax(logits, axis=-1)

        eager = queued_ms(lambda: run(lambda *a: decode_step(model, *a)), 5)
        row = {"eager": eager, "replayed": queued_ms(lambda: run(program))}
        started = time.perf_counter()
        mx.eval(run(program))
        row["alone"] = 1e3 * (time.perf_counter() - started)
        started = time.perf_counter()
        run(program)
        row["python"] = 1e3 * (time.perf_counter() - started)
        report[f"step {B} x {T}"] = {k: round(v, 2) for k, v in row.items()}
        print(f"step {B} x {T}", report[f"step {B} x {T}"], flush=True)
    mel = mx.random.normal((1, 1200, 128))
    report["encoder 12 s"] = round(
        queued_ms(lambda: model.embed_audio(mel, model.encoder.make_state(600)), 3), 1
    )
    return report


def part_a(model: VoxtralRealtime, old: Any) -> Report:
    ours, theirs = [], []
    for n in (40, 250, 750, 250, 750):
        ours.append((n, 1e3 * decode_only(model, n)))
        theirs.append((n, 1e3 * old_decode_only(old, model, n)))
    best = {n: min(ms for m, ms in ours if m == n) for n in (250, 750)}
    old_best = {n: min(ms for m, ms in theirs if m == n) for n in (250, 750)}
    return {"ours_ms": best, "old_ms": old_best, "ratio": {n: best[n] / old_best[n] for n in best}}


def part_b(model: VoxtralRealtime, old: Any, record: Report, seconds: float) -> Report:
    clip = noise(seconds)
    report: Report = {}
    real = row_module.count_right
    for _turn in range(2):
        t, peak, _ = timed(lambda: old_generate(old, clip))
        report["old"] = {"s": min(t, report.get("old", {}).get("s", t)), "peak_gb": peak}
        for name, width in (("one_a_pass", 1), ("replayed", None)):
            if width is None:
                row_module.count_right = Replay(record, 1)
            t, peak, last = timed(lambda w=width: transcribe_rows(model, [clip], w))
            row_module.count_right = real
            before = report.get(name, {}).get("s", t)
            last.pop("ids")
            report[name] = {"s": min(t, before), "peak_gb": peak, **last}
    for name in ("one_a_pass", "replayed"):
        report[name]["times_faster"] = report["old"]["s"] / report[name]["s"]
        report[name]["memory_ratio"] = report[name]["peak_gb"] / report["old"]["peak_gb"]
    return report


def part_c(
    model: VoxtralRealtime, old: Any, record: Report, minutes: float, rows: list[int]
) -> Report:
    clip = noise(60 * minutes)
    report: Report = {}
    real = row_module.count_right
    for n in rows:
        pieces = np.array_split(clip, n)
        transcribe_rows(model, [p[: 16000 * 8] for p in pieces], 1)  # traces the shapes
        for name, width in (("one_a_pass", 1), ("replayed", None)):
            if width is None:
                row_module.count_right = Replay(record, n)
            t, peak, last = timed(lambda w=width, p=pieces: transcribe_rows(model, list(p), w))
            row_module.count_right = real
            last.pop("ids")
            report[f"{name}_{n}_rows"] = {"s": t, "peak_gb": peak, **last}
            print(f"c {name} {n} rows", report[f"{name}_{n}_rows"], flush=True)
    t, peak, _ = timed(lambda: old_generate(old, clip))
    report["old"] = {"s": t, "peak_gb": peak}
    for part in report.values():
        part["times_faster"] = t / part["s"]
        part["memory_ratio"] = part["peak_gb"] / peak
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
        guessed, _, last = timed(lambda m=model: transcribe_rows(m, [clip], None), 3)
        plain, _, one = timed(lambda m=model: transcribe_rows(m, [clip], 1), 3)
        theirs, _, ids = timed(lambda o=old, w=window: old_generate(o, clip, window=w), 3)
        same = last["ids"] == one["ids"]
        report[str(dtype)] = {"guessed_s": guessed, "one_a_pass_s": plain, "old_s": theirs}
        report[str(dtype)] |= {"passes": last["passes"], "tokens": last["tokens"], "same": same}
        agree = sum(a == b for a, b in zip(ids, last["ids"], strict=False)) / len(ids)
        report[str(dtype)]["ids_like_old"] = agree
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--old", required=True, help="folder of the package voxmlx 0.0.2")
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--size", default="4b", choices=CONFIGS)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rows", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--trained", type=Path, help="folder of a trained model, for part t")
    parser.add_argument("--speech", type=Path, help="its recording: an .npz of int16 at 16 kHz")
    parser.add_argument("--parts", default="pabc")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    single, batched = json.loads(args.record.read_text())
    started = time.perf_counter()
    model = random_model(CONFIGS[args.size], bits=4)
    prepare_for_inference(model)
    old = old_model(args.old, model)
    mx.clear_cache()
    report: Report = {"weights_gb": mx.get_active_memory() / 1e9}
    print(f"weights {report['weights_gb']:.2f} GB in {time.perf_counter() - started:.1f} s")
    parts: dict[str, Callable[[], Report]] = {
        "p": lambda: part_p(model),
        "a": lambda: part_a(model, old),
        "b": lambda: part_b(model, old, single, args.seconds),
        "t": lambda: part_t(args.trained, args.old, args.speech),
        "c": lambda: part_c(model, old, batched, args.minutes, args.rows),
    }
    for part in args.parts:
        started = time.perf_counter()
        try:
            report[part] = parts[part]()
        except Exception as error:  # one part must not cost the others their time on the device
            report[part] = {"error": repr(error)[:2000]}
        seconds = time.perf_counter() - started
        print(part, json.dumps(report[part]), f"({seconds:.0f} s)", flush=True)
        if args.out is not None:
            args.out.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
