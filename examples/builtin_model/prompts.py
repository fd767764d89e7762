"""Step 1b: the spoken prompts of Asterisk as recordings with their texts, for align_real.py.

    python prompts.py --sounds DIR --texts core-sounds-en.txt --out SPEECH/asterisk

`DIR` is usr/share/asterisk/sounds/en_US_f_Allison of Debian's asterisk-core-sounds-en-g722 1.6.1
(CC BY-SA 3.0, spoken by Allison Smith); the texts are the sounds' own list of what is said. Prompts
with sounds in brackets, initials or numbers of several digits are left out: texts in doubt.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import av
import numpy as np
import soundfile
from common import normalise

DIGITS = "zero one two three four five six seven eight nine".split()
UNCLEAR = re.compile(
    r"[\[\]()<>@$%&]|\d\d|\d\.\d|www|PBX|IAX|IVR|DAHDI|MGCP|\b[A-Z]\.|\bH\.|SIP|USB"
)
REPAIRS = {"*": "star", "#": "pound", "thru": "through", "umute": "unmute", "witheld": "withheld"}


def said(text: str) -> str | None:
    """What a prompt says, normalised; None where the list leaves it open."""
    for wrong, right in REPAIRS.items():
        text = text.replace(wrong, right)
    if UNCLEAR.search(text):
        return None
    text = re.sub(r"\d", lambda m: f" {DIGITS[int(m[0])]} ", text.replace("...", " "))
    return normalise(re.sub(r"[.,;:!?/]", " ", text)) or None


def decode(path: Path) -> np.ndarray:
    """(n,) float32 at 16 kHz of a raw G.722 file."""
    with av.open(str(path), format="g722") as container:
        frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    return np.concatenate(frames).astype(np.float32) / 32768


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("--sounds", "--texts", "--out"):
        parser.add_argument(name, type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    seconds = 0.0
    with open(args.out / "text.tsv", "w") as table:
        for line in args.texts.read_text().splitlines():
            name, _, text = line.partition(":")
            name = name.removesuffix(".wav")
            path = args.sounds / f"{name}.g722"
            words = None if line.startswith(";") else said(text)
            if words is None or not path.exists():
                continue
            wave = decode(path)
            file = name.replace("/", "_") + ".opus"
            soundfile.write(args.out / file, wave, 16_000, format="OGG", subtype="OPUS")
            print(file, words, sep="\t", file=table)
            seconds += len(wave) / 16_000
    print(f"{seconds / 60:.1f} minutes")


if __name__ == "__main__":
    main()
