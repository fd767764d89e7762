"""Step 5: the shipped examples and the fixed evaluation set, of never-trained voices and sentences.

    python recordings.py --held-out DIR --examples OUT --evaluation OUT

`--held-out` is what `synthesise.py --held-out` wrote: clips that begin 0.2 s before the speech and
end 0.4 s after it. The last 0.35 s hold a noise that the voice model makes after a sentence and
are cut off.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000
TAIL = 5_600
EVALUATION_CLIPS = 40
LONG_SECONDS = 120
NAMES = {
    "af_kore": "american_1",
    "af_sky": "american_2",
    "am_eric": "american_3",
    "am_puck": "american_4",
    "bf_lily": "british_1",
    "bm_daniel": "british_2",
}


def read(folder: Path) -> list[tuple[str, str, np.ndarray]]:
    """(voice, text, audio) of every held-out clip, faded out where the sentence ends."""
    clips = []
    for line in (folder / "text.tsv").read_text().splitlines():
        name, text = line.split("\t")
        wave, _ = soundfile.read(folder / name, dtype="float32")
        wave = wave[: len(wave) - TAIL]
        wave[-480:] *= np.linspace(1, 0, 480, dtype=np.float32)
        clips.append((name[4:].removesuffix(".ogg"), text, wave))
    return clips


def write(path: Path, wave: np.ndarray) -> None:
    """Ogg Opus, mono."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, RATE, format="OGG", subtype="OPUS")


def noisy(wave: np.ndarray, decibels: float, seed: int = 3) -> np.ndarray:
    """The clip with pink noise at a signal-to-noise ratio."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(len(wave)))
    noise = np.fft.irfft(spectrum / np.sqrt(np.arange(len(spectrum)) + 1), len(wave))
    scale = np.sqrt(np.mean(wave**2) / np.mean(noise**2)) * 10 ** (-decibels / 20)
    return (wave + scale * noise).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("--held-out", "--examples", "--evaluation"):
        parser.add_argument(name, type=Path, required=True)
    args = parser.parse_args()
    clips = read(args.held_out)
    rng = np.random.default_rng(0)
    rng.shuffle(clips)
    long = [c for c in clips if len(c[1].split()) >= 10]
    rows = []
    for voice, name in NAMES.items():
        mine = [c for c in long if c[0] == voice][:3]
        parts = [np.pad(wave, (0, RATE // 2)) for _, _, wave in mine]
        write(args.examples / f"{name}.ogg", np.concatenate(parts))
        rows.append((f"{name}.ogg", " ".join(text for _, text, _ in mine)))
        long = [c for c in long if not any(c is m for m in mine)]
    voice, text, wave = next(c for c in long if c[0] == "bm_daniel")
    write(args.examples / "noisy.ogg", noisy(wave, 12))
    rows.append(("noisy.ogg", text))
    rest = [
        c for c in clips if c[1] not in {t for _, t in rows} and all(c[1] not in t for _, t in rows)
    ]
    picked, total = [], 0.0
    for clip in [c for c in rest if c[0] in ("bm_daniel", "af_sky")]:
        if total > LONG_SECONDS:
            break
        pause = int(RATE * rng.uniform(0.3, 1.5))
        picked.append((clip[1], np.pad(clip[2], (0, pause))))
        total += len(picked[-1][1]) / RATE
    write(args.examples / "two_minutes.ogg", np.concatenate([wave for _, wave in picked]))
    rows.append(("two_minutes.ogg", " ".join(text for text, _ in picked)))
    (args.examples / "text.tsv").write_text("".join(f"{name}\t{text}\n" for name, text in rows))
    used = {text for text, _ in picked}
    rest = [c for c in rest if c[1] not in used][:EVALUATION_CLIPS]
    lines = []
    for i, (voice, text, wave) in enumerate(rest):
        write(args.evaluation / f"{i:02d}_{NAMES[voice]}.ogg", wave)
        lines.append(f"{i:02d}_{NAMES[voice]}.ogg\t{text}\n")
    (args.evaluation / "text.tsv").write_text("".join(lines))
    print(f"{len(rows)} examples, {total:.0f} s in the long one; {len(rest)} evaluation clips")


if __name__ == "__main__":
    main()
