"""Error of one model against delay and bits: the table of the README, from one command.

    python benchmarks/delays_and_bits.py --model tiny --data RECORDINGS --output-dir results

Converts the model to 4 bits, with and without rotation, evaluates each copy at every delay, and
writes ``results/table.md``, ``results/report.html`` and the utterances as JSON. What lies in the
folder already is not made again. Without a GPU the packed copies are unpacked to floats before they
are run: the same weights, rounded in the same way, but many times faster there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import mlx.core as mx

from voxmlx.checkpoints.hub import resolve
from voxmlx.config import SUPPORTED_DELAYS_MS
from voxmlx.evaluate.html_report import html_report
from voxmlx.evaluate.manifest import read_manifest
from voxmlx.evaluate.results import Evaluation, read_results, to_dict
from voxmlx.evaluate.run import evaluate, weight_bits
from voxmlx.evaluate.text_report import delay_table, markdown_table
from voxmlx.pipeline import load
from voxmlx.writers import atomic_write

COPIES = {
    "float": None,
    "int4": ("-q", "--q-bits", "4"),
    "int4 rotated": ("-q", "--q-bits", "4", "--q-rotate", "hadamard"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny", help="a float model")
    parser.add_argument("--data", required=True, help="anything that 'voxmlx eval' reads")
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="take only the first recordings")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--delays", type=int, nargs="+", default=list(SUPPORTED_DELAYS_MS))
    arguments = parser.parse_args()
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    results = [measure(name, arguments) for name in COPIES]
    table = markdown_table(delay_table(results))
    print(table)
    for name, text in (("table.md", table), ("report.html", html_report(results))):
        with atomic_write(arguments.output_dir / name) as file:
            file.write(text)


def measure(name: str, arguments: argparse.Namespace) -> Evaluation:
    """Evaluate one copy of the model, or read what an earlier run found."""
    saved = arguments.output_dir / f"{name.replace(' ', '-')}.json"
    if saved.exists():
        return read_results(saved)
    folder, runnable = make_copy(name, resolve(arguments.model), arguments.output_dir)
    bits, n_bytes = weight_bits(load(folder).model)
    result = evaluate(
        load(runnable, dtype="float32" if runnable != folder else None),
        read_manifest(arguments.data)[: arguments.limit],
        delays=arguments.delays,
        rows=arguments.batch_size,
        model=name,
        data=str(arguments.data),
    )
    result = dataclasses.replace(result, bits=round(bits, 2), size_mb=round(n_bytes / 1e6, 3))
    with atomic_write(saved) as file:
        json.dump(to_dict(result), file, ensure_ascii=False, indent=1)
    return result


def make_copy(name: str, source: Path, folder: Path) -> tuple[Path, Path]:
    """The converted model, and the form of it that runs fast on this machine."""
    options = COPIES[name]
    if options is None:
        return source, source
    packed, floats = folder / name.replace(" ", "-"), folder / f"{name.replace(' ', '-')}-unpacked"
    if not packed.exists():
        convert(source, packed, *options)
    if mx.default_device() != mx.Device(mx.cpu):
        return packed, packed
    if not floats.exists():
        convert(packed, floats, "-d", "--dtype", "float32")
    return packed, floats


def convert(source: Path, target: Path, *options: str) -> None:
    command = [sys.executable, "-m", "voxmlx_convert.cli", str(source), "--mlx-path", str(target)]
    subprocess.run([*command, *options], check=True)


if __name__ == "__main__":
    main()
