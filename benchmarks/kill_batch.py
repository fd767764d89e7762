"""An archive that is killed again and again ends as one that is left alone.

    python benchmarks/kill_batch.py --model tiny --files 2000 --kills 20

Cuts short recordings out of a longer one, transcribes them once without a break, then again into
another folder while the process is killed (SIGKILL) at random moments. Checked are that every
output is there, equal to the undisturbed one, and was written once.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from voxmlx.audio.decode import SAMPLE_RATE, read_audio

SPEECH = Path(__file__).parents[1] / "voxmlx" / "assets" / "examples" / "two_minutes.ogg"
SHORTEST_S, LONGEST_S = 0.4, 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--delay", type=int, default=80)
    parser.add_argument("--speech", type=Path, default=SPEECH)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_recordings(folder / "in", arguments.speech, arguments.files, rng)
        options: tuple[object, ...] = (folder / "in", "-m", arguments.model)
        options += ("--delay", arguments.delay, "--batch-size", arguments.batch_size)
        started = time.monotonic()
        start(*options, "-o", folder / "whole").wait()
        whole_s = time.monotonic() - started
        print(f"undisturbed: {len(outputs(folder / 'whole'))} files in {whole_s:.0f} s", flush=True)
        born = kill_often(options, folder / "killed", arguments.kills, arguments.files, rng)
        code = start(*options, "-o", folder / "killed").wait()
        check(folder, born, arguments.files, code)


def make_recordings(folder: Path, speech: Path, n: int, rng: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    samples = read_audio(speech)
    for i in range(n):
        length = int(rng.uniform(SHORTEST_S, LONGEST_S) * SAMPLE_RATE)
        start = int(rng.integers(0, len(samples) - length))
        soundfile.write(folder / f"{i:05d}.wav", samples[start : start + length], SAMPLE_RATE)


def start(*arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "voxmlx.cli.main", "batch", *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def outputs(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in folder.glob("*.txt")}


def kill_often(
    options: tuple[object, ...], folder: Path, n_kills: int, n_files: int, rng: np.random.Generator
) -> dict[str, int]:
    """Kill the command after random numbers of outputs; returns when each output was written."""
    born: dict[str, int] = {}
    stops = np.sort(rng.choice(np.arange(1, n_files), n_kills, replace=False))
    for number, stop in enumerate(stops, 1):
        process = start(*options, "-o", folder)
        while process.poll() is None and len(outputs(folder)) < stop:
            time.sleep(0.01)
        time.sleep(float(rng.uniform(0, 0.1)))
        process.kill()
        process.wait()
        for name, path in outputs(folder).items():
            born.setdefault(name, path.stat().st_mtime_ns)
        print(f"kill {number}: {len(born)} outputs there", flush=True)
    return born


def check(folder: Path, born: dict[str, int], n_files: int, code: int) -> None:
    """Say what holds, and fail if something does not."""
    whole, killed = outputs(folder / "whole"), outputs(folder / "killed")
    equal = [
        name
        for name, path in whole.items()
        if name in killed and killed[name].read_bytes() == path.read_bytes()
    ]
    again = [name for name, time_ns in born.items() if killed[name].stat().st_mtime_ns != time_ns]
    halves = [path for path in (folder / "killed").iterdir() if path.suffix == ".tmp"]
    spoken = [name for name, path in whole.items() if path.read_text().strip()]
    print(
        f"exit code {code}; {len(killed)} of {n_files} outputs, {len(equal)} equal "
        f"({len(spoken)} hold words), {len(again)} written twice, {len(halves)} leftovers"
    )
    if code or len(equal) != n_files or again:
        sys.exit(1)


if __name__ == "__main__":
    main()
