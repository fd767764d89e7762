"""Step 2b, on the GPU machine: shards of the aligned recordings, folders of the test recordings.

    python pack_real.py --real DIR --data DIR --sets DIR

`--real` is what align_real.py wrote.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
from common import build_shard


def read(job: tuple[Path, dict[str, Any]]) -> dict[str, Any]:
    """A clip for common.build_shard."""
    import soundfile
    from scipy.signal import resample_poly

    folder, row = job
    wave, rate = soundfile.read(folder / row["file"], dtype="float32", always_2d=True)
    wave = wave.mean(1)
    if rate != 16_000:
        g = math.gcd(rate, 16_000)
        wave = resample_poly(wave, 16_000 // g, rate // g)
    wave = wave / max(1e-3, float(np.abs(wave).max())) * 0.7
    track = np.zeros(len(wave) // 160 + 1, np.uint8)
    for phone, start, stop in row["phones"]:
        track[start:stop] = phone
    return {
        "audio": np.round(wave * 32767).astype(np.int16),
        "track": track,
        "onset": row["onset"],
        "offset": row["offset"],
        "words": [(int(e), w) for e, w in row["words"]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("--real", "--data", "--sets"):
        parser.add_argument(name, type=Path, required=True)
    args = parser.parse_args()
    rows = json.loads((args.real / "real.json").read_text())
    args.data.mkdir(parents=True, exist_ok=True)
    for source in sorted({row["source"] for row in rows}):
        train = [row for row in rows if row["source"] == source and row["split"] == "train"]
        # what is longer than a training clip cannot be used whole
        train = [row for row in train if row["offset"] - row["onset"] < 29 * 16_000]
        if train:
            with Pool() as pool:
                clips = pool.map(read, [(args.real, row) for row in train], 16)
            shard = build_shard(clips, source)
            shard.save(args.data / f"real_{source}")
            print(source, len(clips), f"{shard.length.sum() / 57.6e6:.2f} h", flush=True)
        test = [row for row in rows if row["source"] == source and row["split"] == "test"]
        if test:
            folder = args.sets / source
            folder.mkdir(parents=True, exist_ok=True)
            with open(folder / "text.tsv", "w") as file:
                for row in test:
                    name = Path(row["file"]).name
                    shutil.copy(args.real / row["file"], folder / name)
                    print(name, row["text"], sep="\t", file=file)


if __name__ == "__main__":
    main()
