"""Step 2c, on any CPU: formant speech of eSpeak NG as shards, beside the voices of synthesise.py.

    python espeak_voice.py --espeak DIR --text text.tsv --out DIR --seconds 480 --workers 8

`DIR` holds libespeak-ng.so.1 (1.51) in lib/ and the folder espeak-ng-data; the program is GPL-3,
its output is free. Times of words and phones are the library's own events. Each line gets one of 9
accents, one of the `!v` variants, and a pitch, range and speed of its own.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import os
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import workers
from common import PHONE_ID

ACCENTS = (
    "en en-us en-us en-us en-gb en-gb-scotland en-gb-x-gbclan en-gb-x-gbcwmd en-gb-x-rp "
    "en-us-nyc en-029"
).split()
UNFIT = re.compile("whisper|demonic|robo|storm|tweaky|croak|serious|fast", re.IGNORECASE)
LINES_PER_SHARD = 1_000
MAX_SECONDS = 15.0
WORD, PHONEME = 1, 7  # espeak_EVENT_TYPE
# eSpeak's own names of phones, without what follows a length mark, a digit or a sign
PHONES = dict(
    pair.split(":")
    for pair in (
        "p:P b:B t:T d:D k:K g:G f:F v:V T:TH D:DH s:S z:Z S:SH Z:ZH h:HH m:M n:N N:NG l:L L:L r:R "
        "R:R w:W j:Y tS:CH dZ:JH x:K C:K ?:SIL _:SIL i:IY I:IH e:EH E:EH a:AE aa:AE A:AA O:AO 0:AA "
        "o:AO oU:OW U:UH u:UW V:AH @:AH 3:ER @r:ER aI:AY eI:EY OI:OY aU:AW I@:IH e@:EH U@:UH "
        "O@:AO o@:AO A@:AA i@:IY aI@:AY aU@:AW @L:L @l:L n-:N y:UW Y:UW w#:W VR:ER"
    ).split()
)


class Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = [
        ("kind", ctypes.c_int),
        ("unique", ctypes.c_uint),
        ("position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("milliseconds", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user", ctypes.c_void_p),
        ("name", ctypes.c_char * 8),
    ]


CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event)
)


def phone_of(name: str) -> int:
    """Phone id of an eSpeak name; 255 (unknown) where there is none."""
    bare = name.rstrip("#2:;-'^~\"`!,")
    for key in (name, bare, re.sub(r"[^A-Za-z@?0_]", "", name), bare[:1]):
        if key in PHONES:
            return PHONE_ID[PHONES[key]]
    return 255


class Espeak:
    """The library, in this process."""

    def __init__(self, folder: Path) -> None:
        for name in ("libpcaudio.so.0", "libsonic.so.0"):
            if (folder / "lib" / name).exists():
                ctypes.CDLL(str(folder / "lib" / name), ctypes.RTLD_GLOBAL)
        self.lib = ctypes.CDLL(str(folder / "lib" / "libespeak-ng.so.1"))
        self.rate = self.lib.espeak_Initialize(1, 0, str(folder).encode(), 1)
        if self.rate <= 0:
            raise OSError(f"{folder}: eSpeak does not start, expected espeak-ng-data in it")
        self.waves: list[np.ndarray] = []
        self.events: list[tuple[int, int, int, str]] = []
        self._callback = CALLBACK(self._collect)
        self.lib.espeak_SetSynthCallback(self._callback)
        variants = sorted(os.listdir(folder / "espeak-ng-data" / "voices" / "!v"))
        self.variants = [v for v in variants if not UNFIT.search(v)]

    def _collect(self, wave: Any, n: int, events: Any) -> int:
        if n > 0 and wave:
            self.waves.append(np.ctypeslib.as_array(wave, (n,)).copy())
        i = 0
        while events[i].kind:
            e = events[i]
            if e.kind in (WORD, PHONEME):
                self.events.append((e.kind, e.position - 1, e.sample, e.name.decode("latin-1")))
            i += 1
        return 0

    def speak(self, text: str, rng: random.Random) -> dict[str, Any] | None:
        """A clip for common.build_shard, with a voice of its own."""
        voice = f"{rng.choice(ACCENTS)}+{rng.choice(self.variants)}"
        if self.lib.espeak_SetVoiceByName(voice.encode()):
            self.lib.espeak_SetVoiceByName(b"en-us")
        for parameter, value in (
            (1, rng.randint(120, 230)),  # words a minute
            (3, round(min(99, max(1, rng.gauss(50, 22))))),  # pitch
            (4, round(min(99, max(1, rng.gauss(50, 20))))),  # its range
        ):
            self.lib.espeak_SetParameter(parameter, value, 0)
        self.waves, self.events = [], []
        data = text.encode()
        self.lib.espeak_Synth(data, len(data) + 1, 0, 1, 0, 1, None, None)
        self.lib.espeak_Synchronize()
        if not self.waves:
            return None
        wave = np.concatenate(self.waves).astype(np.float32)
        return label(text, wave, self.events, self.rate)


def word_ends(
    words: list[str], spans: list[tuple[int, int, int]], positions: list[int]
) -> list[int]:
    """End samples of all words; words that eSpeak joined share their sound by their letters.

    Args:
        words: the line's words.
        spans: (first letter, start, end) of each spoken group of words, by time.
        positions: first letter of each word in the line.
    """
    ends = []
    for g, (letter, start, stop) in enumerate(spans):
        following = spans[g + 1][0] if g + 1 < len(spans) else 1 << 30
        mine = [w for w, p in zip(words, positions, strict=True) if letter <= p < following]
        total, done = max(1, sum(map(len, mine))), 0
        for word in mine:
            done += len(word)
            ends.append(start + (stop - start) * done // total)
    return ends


def label(
    text: str, wave: np.ndarray, events: list[tuple[int, int, int, str]], rate: int
) -> dict[str, Any] | None:
    """The clip at 16 kHz with its word ends and phone track; None where the events do not fit."""
    words = text.split()
    positions = [m.start() for m in re.finditer(r"\S+", text)]
    phones = [(s, p, name) for kind, p, s, name in events if kind == PHONEME and name]
    starts: list[tuple[int, int]] = []
    for kind, position, sample, _ in events:
        if kind == WORD and position in positions and (not starts or position > starts[-1][0]):
            starts.append((position, sample))
    if not starts or not phones or starts[0][0] != 0:
        return None
    spans = []
    for i, (letter, sample) in enumerate(starts):
        limit = starts[i + 1][1] if i + 1 < len(starts) else len(wave)
        mine = [s for s, _, name in phones if sample <= s < limit and not name.startswith("_")]
        if not mine:
            return None
        after = [s for s, _, _ in phones if s > mine[-1]]
        spans.append((letter, mine[0], min(min(after, default=len(wave)), len(wave))))
    ends = word_ends(words, spans, positions)
    sound = [s for s, _, name in phones if not name.startswith("_")]
    if len(ends) != len(words):
        return None
    track = np.zeros(len(wave) * 100 // rate + 1, np.uint8)
    for i, (s, _, name) in enumerate(phones):
        stop = phones[i + 1][0] if i + 1 < len(phones) else len(wave)
        track[s * 100 // rate : stop * 100 // rate] = phone_of(name)
    scale = 16_000 / rate
    offset = int(spans[-1][2] * scale)
    audio = to_16k(wave, rate)[: offset + 3_200]
    peak = float(np.abs(audio).max()) if len(audio) else 0.0
    if peak < 100 or len(audio) > MAX_SECONDS * 16_000:
        return None
    return {
        "audio": np.round(audio / peak * 0.7 * 32767).astype(np.int16),
        "track": track[: len(audio) // 160 + 1],
        "onset": int(sound[0] * scale),
        "offset": min(offset, len(audio)),
        "words": [(min(int(e * scale), len(audio)), w) for e, w in zip(ends, words, strict=True)],
    }


def to_16k(wave: np.ndarray, rate: int) -> np.ndarray:
    """The same sound at 16 kHz, by cutting the spectrum of whole seconds."""
    seconds = -(-len(wave) // rate) + 1
    spectrum = np.fft.rfft(wave, seconds * rate)[: seconds * 8_000 + 1]
    return np.fft.irfft(spectrum, seconds * 16_000)[: len(wave) * 16_000 // rate] * (16_000 / rate)


def work(args: argparse.Namespace, worker: int, began: float) -> None:
    """One process: shards until the time is over."""
    rng = random.Random(1_000 * args.seed + worker)
    espeak = Espeak(args.espeak)
    index = len(list(args.out.glob(f"e{worker}_*.json")))
    turns = itertools.cycle(workers.lines_of(args, worker, rng))

    def speak() -> list[dict[str, Any]]:
        clip = espeak.speak(next(turns), rng)
        return [] if clip is None else [clip]

    workers.write_shards(
        args, began, "espeak", f"e{worker}", index, speak, lambda _: args.lines_per_shard
    )


if __name__ == "__main__":
    workers.run(work, __doc__.split("\n")[0], "espeak", 480, LINES_PER_SHARD)
