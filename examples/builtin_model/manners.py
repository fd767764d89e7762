"""Draws how lines are spoken: rhythm, near sounds, smearing, pitch (see kokoro_voice.Manner).

The sizes follow what PocketSphinx finds in LibriSpeech, LJ Speech and coffee orders: log durations
of people's phones spread by 0.5 about what Kokoro predicts, with less contrast (a slope of 0.5 to
0.6), and words of one sentence are faster and slower.
"""

from __future__ import annotations

import math
import random

import numpy as np
import torch
from accents import NEAR
from kokoro_voice import STYLE, Manner

PAUSES = ",.;:!?—…"
MARKS = "ˈˌː"


def _rhythm(letters: list[str], rng: random.Random) -> np.ndarray:
    """(L,) logarithms of factors on the letters' durations."""
    jitter, tempo = rng.uniform(0.03, 0.45), rng.uniform(0.0, 0.3)
    habits = {c: rng.gauss(0, 0.15) for c in sorted(set(letters))}
    linger, hurry = rng.uniform(0.0, 0.12), rng.uniform(0.0, 1.2)
    word, own, out = rng.gauss(0, tempo), 0.0, [rng.gauss(0, 0.3)]
    for i, c in enumerate(letters):
        if c == " ":
            word = 0.4 * word + rng.gauss(0, tempo)
            after = letters[i - 1] in PAUSES if i else False
            pause = rng.uniform(1.0, 2.6) if rng.random() < linger and not after else 0.0
            out.append(rng.gauss(-0.1, 0.3) + pause)
        elif c in PAUSES:
            out.append(-rng.random() * hurry + rng.gauss(0, 0.3))
        else:
            if c != "ː":  # a mark of stress and its vowel go together
                own = own if i and letters[i - 1] in "ˈˌ" else rng.gauss(0, jitter)
            out.append(word + own + (0.0 if c in MARKS else habits[c]))
    return np.array([*out, rng.gauss(0, 0.3)], np.float32)


def _near(
    letters: list[str], vocab: dict[str, int], rng: random.Random
) -> tuple[list[int], list[float]]:
    """Another letter for each, and how far its sound moves there; alike for a letter's places."""
    most = rng.choice((0.0, 0.3, 0.5, 0.65))
    goal = {c: rng.choice(NEAR[c].replace("-", "") or c) if c in NEAR else c for c in set(letters)}
    base = {c: rng.uniform(0, most) for c in sorted(goal)}
    share = [min(0.7, max(0.0, base[c] * rng.uniform(0.3, 1.5))) for c in letters]
    return [vocab.get(goal[c], vocab[c]) for c in letters], share


def draw(
    lines: list[list[str]],
    vocab: dict[str, int],
    styles: np.ndarray,
    colours: np.ndarray,
    rng: random.Random,
) -> Manner:
    """A manner for each line of letters.

    Args:
        lines: letters of each sentence.
        vocab: their ids.
        styles: (B, 256) voices.
        colours: (B, 256) other voices, which some sentences take their last part's sound from.
        rng: random numbers.
    """
    L = max(map(len, lines)) + 2
    rhythm, share = np.zeros((2, len(lines), L), np.float32)
    near = np.zeros((len(lines), L), np.int64)
    scalars = []
    colour = styles[:, :STYLE].copy()
    for b, letters in enumerate(lines):
        n = len(letters)
        rhythm[b, : n + 2] = _rhythm(letters, rng)
        near[b, 1 : n + 1], share[b, 1 : n + 1] = _near(letters, vocab, rng)
        if rng.random() < 0.4:
            colour[b] += rng.uniform(0.3, 1.0) * (colours[b, :STYLE] - colour[b])
        scalars.append(
            (
                rng.uniform(0.5, 1.1),
                math.exp(rng.gauss(0, 0.15)),
                rng.uniform(0.3, 1.7),
                rng.choice((0.0, rng.uniform(0.4, 1.6))),
                rng.choice((0.0, rng.uniform(0.2, 1.0))),
                rng.uniform(0.0, 0.4),
            )
        )
    contrast, pitch, melody, blur, noise, wobble = torch.tensor(scalars).float().T.contiguous()
    return Manner(
        torch.from_numpy(rhythm),
        contrast,
        pitch,
        melody,
        torch.from_numpy(near),
        torch.from_numpy(share),
        blur,
        noise,
        wobble,
        torch.from_numpy(colour.astype(np.float32)),
    )
