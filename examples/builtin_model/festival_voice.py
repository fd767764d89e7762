"""Step 2e, on any CPU: two people's diphones, joined by Festival, as shards beside synthesise.py's.

    python festival_voice.py --festival DIR --text text.tsv --out DIR --seconds 200 --workers 8

`DIR` holds the unpacked Debian packages festival, libestools2.5, festlex-cmu, festlex-poslex,
festvox-kallpc16k and festvox-kdlpc16k (free for any use). Where another system is to run them,
`DIR/lib` holds Debian's ld-linux-x86-64.so.2 and the libraries that `ldd` names. Each line gets one
of the two voices, a speed, a pitch and a liveliness of its own. Times of words and phones are
Festival's.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import workers
from common import PHONE_ID

LINES_PER_SHARD = 1_000
LINES_PER_RUN = 100
MAX_SECONDS = 15.0
RATE = 16_000
SILENCE = {"pau", "h#", "brth", "ssil"}
PHONES = {"ax": "AH", "axr": "ER", "dx": "T", "el": "L", "em": "M", "en": "N", "hv": "HH"}
SCHEME = """
(define (say voice name text stretch mean spread)
  (if (string-equal voice "kal") (voice_kal_diphone) (voice_ked_diphone))
  (Parameter.set 'Duration_Stretch stretch)
  (set! int_lr_params
    (cons (cons 'target_f0_mean (cons mean nil)) (cons (cons 'target_f0_std (cons spread nil))
      (cons '(model_f0_mean 170) (cons '(model_f0_std 34) nil)))))
  (set! utt (Utterance Text ""))
  (utt.set_feat utt 'iform (string-append "\\"" text "\\""))
  (utt.synth utt)
  (utt.save.wave utt (string-append name ".wav") 'riff)
  (set! out (fopen (string-append name ".lab") "w"))
  (mapcar (lambda (s) (format out "S %f %s\\n" (item.feat s 'end) (item.name s)))
    (utt.relation.items utt 'Segment))
  (mapcar
    (lambda (t)
      (if (item.parent t)
        (format out "W %f %s\\n" (item.feat t 'word_end) (item.name t))
        (format out "T 0 %s\\n" (item.name t))))
    (utt.relation.items utt 'Token))
  (fclose out))
"""


def phone_of(name: str) -> int:
    """Phone id of a Festival name."""
    return 0 if name in SILENCE else PHONE_ID[PHONES.get(name, name.upper())]


def speak(festival: Path, texts: list[str], rng: random.Random) -> list[dict[str, Any]]:
    """Clips (see common.build_shard) of some lines, by one run of the program.

    Raises:
        OSError: If the program is not there or speaks not one line.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        calls = [
            f'(say "{rng.choice(("kal", "ked"))}" "{folder}/{i}" "{text}" '
            f"{rng.uniform(0.75, 1.4):.3f} {rng.uniform(75, 200):.1f} {rng.uniform(4, 35):.1f})"
            for i, text in enumerate(texts)
        ]
        (folder / "job.scm").write_text(SCHEME + "\n".join(calls) + "\n")
        root = festival / "usr"
        library = next(root.glob("lib/*/libestools.so.2.5"), None)
        if library is None:
            raise OSError(f"{festival}: no usr/lib/*/libestools.so.2.5, expected Debian's packages")
        program = [str(root / "bin/festival")]
        paths = f"{festival / 'lib'}:{library.parent}"
        if (loader := festival / "lib/ld-linux-x86-64.so.2").exists():
            program = [str(loader), "--library-path", paths, *program]
        run = subprocess.run(
            [
                *program,
                "--datadir", root / "share/festival",
                "--libdir", root / "lib/festival",
                "-b", folder / "job.scm",
            ],
            env=os.environ if len(program) > 1 else {**os.environ, "LD_LIBRARY_PATH": paths},
            capture_output=True, check=False,
        )  # fmt: skip
        clips = [read(folder / str(i), text) for i, text in enumerate(texts)]
    made = [clip for clip in clips if clip is not None]
    if not made:
        said = (run.stderr or run.stdout).decode(errors="replace").strip()[-200:]
        raise OSError(f"{festival}: Festival speaks no line, status {run.returncode}: {said!r}")
    return made


def read(path: Path, text: str) -> dict[str, Any] | None:
    """One line's clip; None where it was not spoken whole, or word for word."""
    if not path.with_suffix(".lab").exists():
        return None
    rows = [line.split() for line in path.with_suffix(".lab").read_text().splitlines()]
    phones = [(float(r[1]), phone_of(r[2])) for r in rows if r[0] == "S"]
    words: list[tuple[int, str]] = []
    for kind, end, name in (r for r in rows if r[0] in "TW" and len(r) == 3):
        if kind == "T":
            words.append((0, name))
        elif words:  # a part of the last one: smith, then 's
            words[-1] = max(words[-1][0], int(float(end) * RATE)), words[-1][1]
    if [w for _, w in words] != text.split() or not any(p for _, p in phones):
        return None
    wave = np.frombuffer(path.with_suffix(".wav").read_bytes()[44:], "<i2").astype(np.float32)
    peak = float(np.abs(wave).max()) if len(wave) else 0.0
    edges = [0, *(round(end * 100) for end, _ in phones)]
    track = np.zeros(len(wave) // 160 + 1, np.uint8)
    for (_, phone), start, stop in zip(phones, edges, edges[1:], strict=False):
        track[start:stop] = phone
    sound = np.flatnonzero(track)
    if peak < 100 or not len(sound) or len(wave) > MAX_SECONDS * RATE:
        return None
    return {
        "audio": np.round(wave / peak * 0.7 * 32767).astype(np.int16),
        "track": track,
        "onset": int(sound[0]) * 160,
        "offset": min(int(sound[-1] + 1) * 160, len(wave)),
        "words": [(min(end, len(wave)), word) for end, word in words],
    }


def work(args: argparse.Namespace, worker: int, began: float) -> None:
    """One process: shards until the time is over."""
    rng = random.Random(1_000 * args.seed + worker)
    index = len(list(args.out.glob(f"f{worker}_*.json")))
    turns = itertools.cycle(workers.lines_of(args, worker, rng))

    def clips() -> list[dict[str, Any]]:
        return speak(args.festival, list(itertools.islice(turns, LINES_PER_RUN)), rng)

    workers.write_shards(
        args, began, "festival", f"f{worker}", index, clips, lambda _: args.lines_per_shard
    )


if __name__ == "__main__":
    workers.run(work, __doc__.split("\n")[0], "festival", 200, LINES_PER_SHARD)
