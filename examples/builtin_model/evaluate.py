"""Greedy transcription in PyTorch, many clips at once, and word error rates.

    python evaluate.py --weights FOLDER --sets DIR --delays 480 --device cpu

FOLDER is an exported Transformers folder; DIR holds a folder for each test set, with recordings and
text.tsv.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import (
    BOS,
    EOS,
    LEFT_PAD,
    PAD,
    RIGHT_BUFFER,
    SAMPLES_PER_TOKEN,
    Bpe,
    normalise,
    word_errors,
)
from model import log_mel, mel_filters
from torch import Tensor
from transformers import DynamicCache


def read_set(folder: Path, limit: int | None = None) -> list[tuple[np.ndarray, str]]:
    """(audio at 16 kHz, normalised reference) of a folder with text.tsv."""
    import soundfile
    from scipy.signal import resample_poly

    out = []
    for line in (folder / "text.tsv").read_text().splitlines()[:limit]:
        name, text = line.split("\t")[:2]
        wave, rate = soundfile.read(folder / name, dtype="float32", always_2d=True)
        wave = wave.mean(1)
        if rate != 16_000:
            g = math.gcd(rate, 16_000)
            wave = resample_poly(wave, 16_000 // g, rate // g).astype(np.float32)
        out.append((wave, normalise(text)))
    return out


@torch.no_grad()
def transcribe(
    model: Any, filters: Tensor, bpe: Bpe, waves: list[np.ndarray], delay: int, batch: int = 256
) -> list[str]:
    """Greedy texts. `model` is a Trainee whose attention is 'sdpa'."""
    texts = [""] * len(waves)
    order = sorted(range(len(waves)), key=lambda i: len(waves[i]))
    for lo in range(0, len(order), batch):
        part = order[lo : lo + batch]
        for i, ids in zip(
            part, _greedy(model, filters, [waves[i] for i in part], delay), strict=True
        ):
            texts[i] = bpe.decode(ids)
    return texts


def _greedy(model: Any, filters: Tensor, waves: list[np.ndarray], delay: int) -> list[list[int]]:
    device = filters.device
    frames = [-(-len(w) // SAMPLES_PER_TOKEN) for w in waves]
    length = LEFT_PAD + max(frames) + delay + RIGHT_BUFFER
    padded = torch.zeros(len(waves), length * SAMPLES_PER_TOKEN)
    for row, wave in zip(padded, waves, strict=True):
        row[LEFT_PAD * SAMPLES_PER_TOKEN :][: len(wave)] = torch.from_numpy(wave)
    audio = []
    for part in padded.split(64):
        mel = log_mel(part.to(device), filters)
        audio.append(model.adapt(model.encode(mel)))
    rows = torch.cat(audio)
    core = model.voxtral.model.language_model
    condition = model.condition(torch.full((len(waves),), delay, device=device)).to(rows.dtype)
    prompt = LEFT_PAD + delay + 1
    tokens = torch.full((len(waves), prompt), PAD, device=device)
    tokens[:, 0] = BOS
    cache = DynamicCache(config=core.config)
    x = core.embed_tokens(tokens) + rows[:, :prompt]
    out = []
    for p in range(prompt, length + 1):
        hidden = core(
            inputs_embeds=x, t_cond=condition, past_key_values=cache, use_cache=True
        ).last_hidden_state
        ids = model.voxtral.lm_head(hidden[:, -1]).argmax(-1)
        out.append(ids)
        if p < length:
            x = core.embed_tokens(ids[:, None]) + rows[:, p : p + 1]
    table = torch.stack(out, 1).cpu().tolist()
    return [_until_end(row[: n + RIGHT_BUFFER]) for row, n in zip(table, frames, strict=True)]


def _until_end(ids: list[int]) -> list[int]:
    return ids[: ids.index(EOS)] if EOS in ids else ids


def interval(
    errors: list[tuple[int, int]], draws: int = 1_000, seed: int = 0
) -> tuple[float, float, float]:
    """Word error rate in per cent with its 95 % bootstrap interval over clips."""
    e, n = np.array(errors, np.float64).T
    pick = np.random.default_rng(seed).integers(0, len(e), (draws, len(e)))
    rates = 100 * e[pick].sum(1) / n[pick].sum(1)
    return (
        100 * e.sum() / n.sum(),
        float(np.percentile(rates, 2.5)),
        float(np.percentile(rates, 97.5)),
    )


def score(
    model: Any, filters: Tensor, bpe: Bpe, clips: list[tuple[np.ndarray, str]], delay: int
) -> tuple[str, list[tuple[str, str]]]:
    """One line of figures, and (reference, hypothesis) pairs."""
    texts = transcribe(model, filters, bpe, [wave for wave, _ in clips], delay)
    pairs = [(ref, hyp) for (_, ref), hyp in zip(clips, texts, strict=True)]
    rate, low, high = interval([word_errors(r, h) for r, h in pairs])
    return f"{rate:5.1f} % [{low:.1f}, {high:.1f}] of {len(pairs)}", pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--sets", type=Path, required=True)
    parser.add_argument("--delays", type=int, nargs="+", default=[480], help="milliseconds")
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--show", type=int, default=0)
    args = parser.parse_args()
    from common import Shape
    from model import Trainee
    from transformers import VoxtralRealtimeForConditionalGeneration

    model = Trainee(Shape())
    model.voxtral = VoxtralRealtimeForConditionalGeneration.from_pretrained(
        args.weights, dtype=torch.float32
    )
    model.to(args.device).eval()
    model.attention("sdpa")
    filters = mel_filters(args.device)
    bpe = Bpe(args.weights / "tekken.json")
    for folder in sorted(p for p in args.sets.iterdir() if (p / "text.tsv").exists()):
        clips = read_set(folder, args.limit)
        for ms in args.delays:
            began = time.time()
            line, pairs = score(model, filters, bpe, clips, ms // 80)
            print(f"{folder.name:24} {ms:5} ms  {line}  ({time.time() - began:.1f} s)", flush=True)
            for ref, hyp in pairs[: args.show]:
                print(f"    ref {ref}\n    hyp {hyp}")


if __name__ == "__main__":
    main()
