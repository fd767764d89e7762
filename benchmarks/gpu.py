"""The release's shape on one GPU against voxmlx 0.0.2, in one process, on the same weights.

    python -m benchmarks.gpu --old FOLDER_OF_VOXMLX_0_0_2 --records acceptance.json [--out out.json]

Weights are random, int4 in groups of 64 with bfloat16 scales, so guesses never hold; parts b and c
replay how many did when a trained model read real speech (``record_acceptance.py``). Programs take
turns; each figure is the shortest of its turns. On a new machine MLX compiles the old program's
operations for up to a minute, so run the parts in one process. Parts, in the order of ``--parts``:

    k  kernels against MLX's own operations     s  times of one step      e  encoder
    a  one position a pass                      b  a recording            t  the small model
    c  a long recording as rows of a batch      o  voxmlx 0.0.2 on the long recording
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from benchmarks.gpu_runs import (
    IDS,
    N_DELAY,
    Replay,
    Report,
    timed,
    transcribe_rows,
    use_kernels,
)
from benchmarks.gpu_steps import part_e, part_k, part_s
from benchmarks.old_voxmlx import old_generate, old_model
from voxmlx.benchmark import noise
from voxmlx.checkpoints.load import load_model
from voxmlx.generation import batch as batch_module
from voxmlx.generation import row as row_module
from voxmlx.generation.batch import BatchDecoder
from voxmlx.generation.row import RowOptions
from voxmlx.kernels import decode
from voxmlx.models.fuse import prepare_for_inference
from voxmlx.models.random_model import CONFIGS, random_model
from voxmlx.models.voxtral_realtime import VoxtralRealtime


class Stop(Exception):
    """Ends a run of the old program that takes too long."""


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
