"""Peak memory and time of one long recording, against a short one.

    python benchmarks/long_file.py MODEL --minutes 10 180

Each length runs in a process of its own, on noise with pauses written as a 16-bit WAV file. Memory
is that of the whole process, decoder of the file included, as the system counts it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

SAMPLE_RATE = 16000


def write_recording(path: Path, minutes: float) -> None:
    rng = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, "PCM_16") as file:
        for second in range(round(60 * minutes)):
            loud = 0.2 if second % 7 < 5 else 0.001
            file.write(loud * rng.standard_normal(SAMPLE_RATE).clip(-3, 3) / 3)


def transcribe(model: str, path: str) -> None:
    from voxmlx import load

    # A random model may end the stream anywhere; restarting makes it hear all of it. The text is
    # counted, not kept, as it grows with the recording whatever the program does.
    started, n_letters = time.perf_counter(), 0
    for text in load(model).generate(path, on_eos="restart", stream=True):
        n_letters += len(text)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_mb = peak / 1e6 if sys.platform == "darwin" else peak / 1024
    audio_s = soundfile.info(path).duration
    print(json.dumps({"peak_mb": peak_mb, "s": seconds, "audio_s": audio_s, "letters": n_letters}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--minutes", type=float, nargs="+", default=[10, 180])
    parser.add_argument("--child", metavar="AUDIO", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        transcribe(args.model, args.child)
        return
    print("minutes   peak MB   seconds   RTF")
    with tempfile.TemporaryDirectory() as folder:
        for minutes in args.minutes:
            path = Path(folder, f"{minutes}.wav")
            write_recording(path, minutes)
            command = [sys.executable, __file__, args.model, "--child", str(path)]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            row = json.loads(out.splitlines()[-1])
            rtf = row["s"] / row["audio_s"]
            print(f"{minutes:7g} {row['peak_mb']:9.1f} {row['s']:9.1f} {rtf:9.5f}", flush=True)
            path.unlink()


if __name__ == "__main__":
    main()
