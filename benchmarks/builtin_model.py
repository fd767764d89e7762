"""Every figure of the built-in model that needs no training, from one command.

    python -m benchmarks.builtin_model --sets FOLDER --results figures.json
        [--reference PYTHON_WITH_TRANSFORMERS HF NATIVE] [--only errors noise ids speed]

FOLDER holds a folder with ``text.tsv`` for each test set. Errors are those of the shipped weights
unpacked to float32, at every delay asked for; a set is encoded once. HF and NATIVE are
the exported folders of the same weights: on NATIVE this package, on HF Transformers must give the
same ids in float32 for the same samples of the example recordings. Put a fast BLAS first
(``LD_PRELOAD=libopenblas.so.0``); the speed is worth telling with and without it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from mlx.utils import tree_flatten

from benchmarks.delays_and_bits import convert
from benchmarks.encoded import decode_all, encode_files
from voxmlx.audio.decode import SAMPLE_RATE, read_audio
from voxmlx.checkpoints.hub import resolve
from voxmlx.evaluate.manifest import read_manifest
from voxmlx.evaluate.results import summarize
from voxmlx.evaluate.run import make_record
from voxmlx.pipeline import Pipeline, load

REFERENCE = Path(__file__).parents[1] / "examples" / "builtin_model" / "reference_ids.py"
EXAMPLES = resolve("tiny").parent / "examples"
Float32Array = npt.NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--sets", type=Path, help="folder of test sets")
    parser.add_argument("--names", nargs="+", help="only these sets")
    parser.add_argument("--delays", type=int, nargs="+", default=[480])
    parser.add_argument("--reference", nargs=3, metavar=("PYTHON", "HF", "NATIVE"))
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--rows", type=int, default=16, help="recordings worked on at a time")
    parser.add_argument("--results", type=Path, help="where to add what was found, as JSON")
    args = parser.parse_args()
    found: dict[str, Any] = {}
    if args.results is not None and args.results.exists():
        found = json.loads(args.results.read_text())
    with tempfile.TemporaryDirectory() as work:
        for name in args.only:
            PARTS[name](args, Path(work), found.setdefault(name, {}))
            if args.results is not None:
                args.results.write_text(json.dumps(found, indent=1) + "\n")


def errors(args: argparse.Namespace, work: Path, found: dict[str, Any]) -> None:
    """Word errors of every set at every delay, with 95 % intervals over recordings."""
    if args.sets is None:
        return
    pipeline = opened(convert(resolve(args.model), work / "floats", "-d", "--dtype", "float32"))
    for folder in sorted(p.parent for p in args.sets.glob("*/text.tsv")):
        if args.names and folder.name not in args.names:
            continue
        utterances = {u.id: u for u in read_manifest(folder)}
        longest = max(args.delays)
        files = {name: u.audio for name, u in utterances.items()}
        encoded = encode_files(pipeline, files, longest, args.rows)
        for delay in args.delays:
            texts = decode_all(pipeline, encoded, delay, longest, rows=args.rows)
            summary = summarize(
                make_record(utterances[name], text, delay, 0.0, "none") for name, text in texts
            )
            line = {"rate": summary.words.rate, "low": summary.low, "high": summary.high}
            line = {name: round(value, 4) for name, value in line.items()}
            found[f"{folder.name} {delay}"] = line | {"clips": len(files)}
            print(folder.name, delay, found[f"{folder.name} {delay}"], flush=True)


def noise(args: argparse.Namespace, work: Path, found: dict[str, Any]) -> None:
    """Words written in a minute that holds none."""
    pipeline = opened(args.model)
    for name, samples in wordless(60.0).items():
        result = pipeline.generate(samples, sample_rate=SAMPLE_RATE)
        found[name] = {"words": len(result.words), "text": result.text}
        print(name, found[name], flush=True)


def wordless(seconds: float) -> Mapping[str, Float32Array]:
    """Silence, noise and music of so many seconds, mono at 16 kHz."""
    n = int(seconds * SAMPLE_RATE)
    rng = np.random.default_rng(0)
    white = rng.standard_normal(n)
    spectrum = np.fft.rfft(rng.standard_normal(n))
    pink = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), n)
    t = np.arange(n) / SAMPLE_RATE

    chord = np.sum([tone(note, t) for note in (60, 64, 67)], axis=0)
    music = np.zeros(n)
    beat = SAMPLE_RATE // 2
    decay = np.exp(-6 * t[:beat])
    for i, start in enumerate(range(0, n - beat, beat)):
        root = (60, 65, 67, 57)[i // 4 % 4]
        notes = (root, root + 4, root + 7, root + 12 + int(rng.choice((0, 2, 4, 7, 9))))
        music[start : start + beat] += decay * np.sum(
            [tone(note, t[:beat]) for note in notes], axis=0
        )
    made = {"digital silence": np.zeros(n)}
    for name, x, level in (
        ("white noise, -60 dB", white, -60),
        ("white noise, -40 dB", white, -40),
        ("white noise, -20 dB", white, -20),
        ("pink noise, -30 dB", pink, -30),
        ("pink noise, -20 dB", pink, -20),
        ("a sounding chord, -20 dB", chord, -20),
        ("chords and a tune, -20 dB", music, -20),
    ):
        made[name] = x / np.sqrt(np.mean(np.square(x))) * 10 ** (level / 20)
    return {name: x.astype(np.float32) for name, x in made.items()}


def tone(note: float, at: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A MIDI note with five harmonics at the times ``at`` in seconds."""
    harmonics = 2 * np.pi * 440 * 2 ** ((note - 69) / 12) * np.arange(1, 6)[:, None]
    return np.sum(np.sin(harmonics * at) / np.arange(1, 6)[:, None], axis=0)


def ids(args: argparse.Namespace, work: Path, found: dict[str, Any]) -> None:
    """Ids of this package and of Transformers, both in float32, on the same samples."""
    if args.reference is None:
        return
    python, reference, folder = args.reference
    samples = {path.name: read_audio(path) for path in sorted(EXAMPLES.glob("*.ogg"))}
    np.savez(work / "samples.npz", **samples)  # type: ignore[arg-type]
    pipeline = opened(folder)
    # On shared cores torch is faster with one thread; it has a BLAS of its own.
    environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    environment["OMP_NUM_THREADS"] = environment.get("OMP_NUM_THREADS", "1")
    for delay in args.delays:
        command = [python, str(REFERENCE), "--weights", reference, "--delay", str(delay)]
        files = ["--samples", str(work / "samples.npz"), "--out", str(work / "ids.npz")]
        subprocess.run([*command, *files], check=True, stdout=subprocess.DEVNULL, env=environment)
        for name, expected in np.load(work / "ids.npz").items():
            got = pipeline.generate(
                samples[name], sample_rate=SAMPLE_RATE, transcription_delay_ms=delay
            ).tokens
            # Transformers stops one position before the end of the audio's embeddings.
            same = len(got) == len(expected) + 1 and got[:-1] == expected.tolist()
            found[f"{name} {delay}"] = {"ids": len(expected), "same": same}
            print(name, delay, found[f"{name} {delay}"], flush=True)


def speed(args: argparse.Namespace, work: Path, found: dict[str, Any]) -> None:
    """Size, parameters, time to load in a new process, and processor time for a second of sound."""
    folder = resolve(args.model)
    code = (
        "import sys, time, voxmlx; c, w = time.process_time(), time.perf_counter();"
        "voxmlx.load(sys.argv[1]); print(time.process_time() - c, time.perf_counter() - w)"
    )
    runs = [
        subprocess.check_output([sys.executable, "-c", code, str(folder)], text=True).split()
        for _ in range(3)
    ]
    pipeline = opened(args.model)
    samples = read_audio(EXAMPLES / "two_minutes.ogg")
    best, wall = float("inf"), float("inf")
    for _ in range(2):
        cpu, clock = time.process_time(), time.perf_counter()
        result = pipeline.generate(samples, sample_rate=SAMPLE_RATE)
        best = min(best, time.process_time() - cpu)
        wall = min(wall, time.perf_counter() - clock)
    unpacked = opened(convert(folder, work / "counted", "-d", "--dtype", "float32"))
    parameters: Any = tree_flatten(unpacked.model.parameters())
    found["OpenBLAS" if "openblas" in os.environ.get("LD_PRELOAD", "") else "as installed"] = {
        "folder_bytes": sum(p.stat().st_size for p in folder.iterdir()),
        "parameters": sum(x.size for _, x in parameters),
        "load_cpu_s": round(min(float(c) for c, _ in runs), 3),
        "load_wall_s": round(min(float(w) for _, w in runs), 3),
        "cpu_s_per_audio_s": round(best / result.duration_s, 4),
        "wall_s_per_audio_s": round(wall / result.duration_s, 4),
        "load_average": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(found), flush=True)


def opened(model: str | Path) -> Pipeline:
    pipeline = load(str(model), dtype="float32")
    assert isinstance(pipeline, Pipeline)
    return pipeline


PARTS: dict[str, Callable[[argparse.Namespace, Path, dict[str, Any]], None]] = {
    "errors": errors,
    "noise": noise,
    "ids": ids,
    "speed": speed,
}

if __name__ == "__main__":
    main()
