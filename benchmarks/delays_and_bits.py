"""Error of one model against delay and bits: the table of the README, from one command.

    python benchmarks/delays_and_bits.py --model MODEL --data SET [SET ...] --output-dir results

Converts the model to 4 bits, with and without rotation, and transcribes with each copy at every
delay. Packed weights run as the float32 numbers that they stand for: the figures are those of the
format and of no kernel. Recordings are encoded once for each copy, as the encoder does not depend
on the delay.

Texts go to ``results/texts.json`` after every delay; what it holds is not made again. At the end
``table.md``, ``report.html`` and one JSON file for each copy are made of them. Where the extra
``eval`` is missing, the same command makes those elsewhere.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import soundfile

from benchmarks.encoded import Float32Array, decode_all, encode_files
from voxmlx.checkpoints.hub import resolve
from voxmlx.config import SUPPORTED_DELAYS_MS
from voxmlx.errors import MissingExtraError
from voxmlx.evaluate.html_report import html_report
from voxmlx.evaluate.manifest import Utterance, read_manifest
from voxmlx.evaluate.results import Evaluation, to_dict
from voxmlx.evaluate.run import make_record, weight_bits
from voxmlx.evaluate.text_report import delay_table, markdown_table
from voxmlx.pipeline import Pipeline, load
from voxmlx.writers import atomic_write

COPIES = {
    "float": (),
    "int4": ("-q", "--q-bits", "4"),
    "int4 rotated": ("-q", "--q-bits", "4", "--q-rotate", "hadamard"),
}
FIRST = (480, 80, 2400, 240, 960, 160)
"""Delays that come first, in case that time runs out."""

CONVERTER = (
    "import mlx.core as mx; mx.set_default_device(mx.cpu); "
    "from voxmlx_convert.cli import main; main()"
)
"""The converter on the CPU: MLX's CUDA backend lacks the Hadamard transform."""


@dataclass
class Copy:
    """One form of the model."""

    name: str
    pipeline: Pipeline
    encoded: dict[str, Float32Array]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny", help="a float model")
    parser.add_argument("--data", nargs="+", required=True, help="what 'voxmlx eval' reads")
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="take only the first recordings of each set")
    parser.add_argument("--rows", type=int, default=32, help="recordings decoded at a time")
    parser.add_argument("--delays", type=int, nargs="+", default=list(SUPPORTED_DELAYS_MS))
    parser.add_argument("--seconds", type=float, help="start no delay after so long")
    arguments = parser.parse_args()
    folder: Path = arguments.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    utterances = read_all(arguments.data, arguments.limit)
    saved = folder / "texts.json"
    found: dict[str, Any] = json.loads(saved.read_text()) if saved.exists() else {}
    found = found or {"copies": {}, "texts": {}, "seconds": {}}
    transcribe_all(utterances, found, arguments)
    try:
        report(utterances, found, " ".join(Path(d).name for d in arguments.data), folder)
    except MissingExtraError as error:
        print(f"no table yet: {error}")


def transcribe_all(
    utterances: Sequence[Utterance], found: dict[str, Any], arguments: argparse.Namespace
) -> None:
    """Fill ``found`` with the texts that it lacks, and save it after each delay of each copy."""
    started = time.monotonic()
    delays = [d for d in FIRST if d in arguments.delays]
    delays += [d for d in arguments.delays if d not in FIRST]
    missing = [(d, c) for d in delays for c in COPIES if f"{c} {d}" not in found["texts"]]
    copies: dict[str, Copy] = {}
    for delay, name in missing:
        if arguments.seconds is not None and time.monotonic() - started > arguments.seconds:
            print("out of time", flush=True)
            return
        if name not in copies:
            copies[name] = open_copy(name, utterances, max(delays), found, arguments)
        copy = copies[name]
        begun = time.perf_counter()
        texts = dict(
            decode_all(copy.pipeline, copy.encoded, delay, max(delays), rows=arguments.rows)
        )
        seconds = time.perf_counter() - begun
        found["texts"][f"{name} {delay}"] = texts
        found["seconds"][f"{name} {delay}"] = round(seconds, 3)
        with atomic_write(arguments.output_dir / "texts.json") as file:
            json.dump(found, file, ensure_ascii=False, indent=0)
        print(f"{name}, {delay} ms: {len(texts)} recordings in {seconds:.1f} s", flush=True)


def open_copy(
    name: str,
    utterances: Sequence[Utterance],
    longest_ms: int,
    found: dict[str, Any],
    arguments: argparse.Namespace,
) -> Copy:
    """Make one form of the model, note its size and encode the recordings with it."""
    begun = time.perf_counter()
    folder = resolve(arguments.model)
    if COPIES[name]:
        folder = convert(folder, arguments.output_dir / name.replace(" ", "-"), *COPIES[name])
    bits, n_bytes = weight_bits(load(folder).model)
    found["copies"][name] = {"bits": round(bits, 2), "size_mb": round(n_bytes / 1e6, 3)}
    floats = arguments.output_dir / f"{name.replace(' ', '-')}-floats"
    pipeline = load(convert(folder, floats, "-d", "--dtype", "float32"))
    assert isinstance(pipeline, Pipeline)
    encoded = encode_files(pipeline, {u.id: u.audio for u in utterances}, longest_ms)
    print(f"{name}: made and encoded in {time.perf_counter() - begun:.1f} s", flush=True)
    return Copy(name, pipeline, encoded)


def convert(source: Path, target: Path, *options: str) -> Path:
    """Run the converter, unless it was run before."""
    if not target.exists():
        command = [sys.executable, "-c", CONVERTER, str(source), "--mlx-path", str(target)]
        subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL)
    return target


def read_all(places: Sequence[str], limit: int | None) -> list[Utterance]:
    """Utterances of several sets; the set's name comes before each id."""
    return [
        replace(u, id=f"{Path(place).name}/{u.id}", language="en")
        for place in places
        for u in read_manifest(place)[:limit]
    ]


def report(utterances: Sequence[Utterance], found: dict[str, Any], data: str, folder: Path) -> None:
    """Write the tables of all texts at hand."""
    by_id = {u.id: u for u in utterances}
    seconds = {u.id: soundfile.info(u.audio).duration for u in utterances}
    results = []
    for name, facts in found["copies"].items():
        result = Evaluation(name, facts["bits"], facts["size_mb"], data, "auto")
        for delay in SUPPORTED_DELAYS_MS:
            texts = found["texts"].get(f"{name} {delay}", {})
            if not texts:
                continue
            result.records.extend(
                make_record(by_id[key], text, delay, seconds[key]) for key, text in texts.items()
            )
            result.elapsed_s[delay] = found["seconds"][f"{name} {delay}"]
        results.append(result)
        write(folder / f"{name.replace(' ', '-')}.json", json.dumps(to_dict(result), indent=1))
    table = markdown_table(delay_table(results))
    write(folder / "table.md", table)
    write(folder / "report.html", html_report(results))
    print(table)


def write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text)


if __name__ == "__main__":
    main()
