"""What every step shares: sizes, special ids, text normalisation, targets, the shard format.

Knows nothing of PyTorch, voices or files other than shards.
"""

from __future__ import annotations

import base64
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SAMPLE_RATE = 16_000
SAMPLES_PER_TOKEN = 1_280  # one decoder position, 80 ms
LEFT_PAD = 32  # positions of zeros before the clip
RIGHT_BUFFER = 11  # positions of zeros after the clip, beside the delay
BOS, EOS, PAD, WORD = 1, 2, 32, 33
N_SPECIAL, N_VOCAB = 1_000, 2_048
TRACK_RATE = 100  # phone labels a second

PHONES = (
    "SIL AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW "
    "V W Y Z ZH"
).split()
PHONE_ID = {name: i for i, name in enumerate(PHONES)}
# Kokoro's phoneme letters. Letters that are not here (stress, length, punctuation) are marks.
KOKORO_PHONES = dict(
    pair.split(":")
    for pair in (
        "A:EY I:AY O:OW Q:OW W:AW Y:OY ᵊ:AH ə:AH ɐ:AH ʌ:AH æ:AE a:AE ɑ:AA ɒ:AA ɔ:AO ɛ:EH e:EH ɜ:ER "
        "ɚ:ER ɪ:IH ᵻ:IH i:IY ʊ:UH u:UW b:B d:D f:F ɡ:G h:HH j:Y k:K l:L m:M n:N ŋ:NG p:P ɹ:R s:S "
        "ʃ:SH t:T T:T ɾ:T ʔ:T θ:TH ð:DH v:V w:W z:Z ʒ:ZH ʤ:JH ʧ:CH x:K"
    ).split()
)


@dataclass(frozen=True)
class Shape:
    """The model's sizes; every linear's input width is a multiple of 128."""

    enc_dim: int = 256
    enc_layers: int = 8
    enc_heads: int = 4
    enc_hidden: int = 640
    enc_window: int = 256
    dec_dim: int = 256
    dec_layers: int = 6
    dec_heads: int = 4
    dec_kv_heads: int = 2
    dec_hidden: int = 896
    dec_window: int = 192
    head_dim: int = 64
    vocab: int = N_VOCAB


TITLES = {"mr": "mister", "mrs": "missus", "dr": "doctor"}


def normalise(text: str) -> str:
    """The text that is trained and scored: lower case, letters, apostrophes, titles in full."""
    text = text.lower().replace("’", "'").replace("-", " ").replace("—", " ")
    words = (re.sub(r"[^a-z']", "", word).strip("'") for word in text.split())
    return " ".join(TITLES.get(word, word) for word in words if word)


class Bpe:
    """Encodes normalised words with the byte pairs of a tekken.json, cached word by word."""

    def __init__(self, tekken: Path) -> None:
        import tiktoken

        data = json.loads(Path(tekken).read_text())
        ranks = {base64.b64decode(v["token_bytes"]): v["rank"] for v in data["vocab"]}
        self.pieces = [base64.b64decode(v["token_bytes"]) for v in data["vocab"]]
        self._encoding = tiktoken.Encoding(
            "builtin", pat_str=data["config"]["pattern"], mergeable_ranks=ranks, special_tokens={}
        )
        self._cache: dict[str, list[int]] = {}

    def word(self, word: str) -> list[int]:
        """The ids of ` word`, with its leading space."""
        if word not in self._cache:
            ids = self._encoding.encode_ordinary(" " + word)
            self._cache[word] = [N_SPECIAL + i for i in ids]
        return self._cache[word]

    def decode(self, ids: list[int]) -> str:
        """Text of a list of ids; special ids are skipped."""
        data = b"".join(self.pieces[i - N_SPECIAL] for i in ids if i >= N_SPECIAL)
        return data.decode("utf-8", "replace").strip()


def targets(
    words: list[tuple[float, list[int]]], n_samples: int, delay: int, length: int
) -> np.ndarray:
    """What each decoder position must emit.

    A word whose sound ends at sample e is due at position 32 + delay + ceil(e / 1280) - 1, one
    token a position; a marker opens it unless tokens are still being written when it falls due.

    Args:
        words: (end in samples of the clip, token ids), by time.
        n_samples: length of the clip.
        delay: delay in positions.
        length: positions of the returned row.

    Returns:
        (length,) int16: token ids; -1 where nothing is asked (prompt, and after the right padding).
    """
    row = np.full(length, -1, np.int16)
    first = LEFT_PAD + delay
    stop = min(length, LEFT_PAD + math.ceil(n_samples / SAMPLES_PER_TOKEN) + delay + RIGHT_BUFFER)
    row[first:stop] = PAD
    free = first
    for end, ids in words:
        due = first + max(0, math.ceil(end / SAMPLES_PER_TOKEN) - 1)
        out = ids if due < free else [WORD, *ids]
        at = max(due, free)
        if at + len(out) > stop:
            break
        row[at : at + len(out)] = out
        free = at + len(out)
    return row


@dataclass
class Shard:
    """Utterances with their words and phones.

    Attributes:
        audio: (n,) int16, the utterances one after the other, each a multiple of 160 samples.
        track: (n / 160,) uint8 phone ids; 255 is unknown.
        start: (u,) int64 first sample of each utterance; `length`: its samples.
        onset, offset: (u,) first and last sample of speech within the utterance.
        words: for each utterance a list of (end sample, word).
        source: name of the data set.
    """

    audio: np.ndarray
    track: np.ndarray
    start: np.ndarray
    length: np.ndarray
    onset: np.ndarray
    offset: np.ndarray
    words: list[list[tuple[int, str]]]
    source: str

    def save(self, path: Path) -> None:
        """Write the two files of a shard; the .json appears last and marks it complete."""
        path = Path(path)
        np.savez(
            path.with_suffix(".npz"),
            audio=self.audio,
            track=self.track,
            start=self.start,
            length=self.length,
            onset=self.onset,
            offset=self.offset,
        )
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"source": self.source, "words": self.words}))
        temporary.rename(path.with_suffix(".json"))

    @classmethod
    def load(cls, path: Path, audio: bool = True) -> Shard:
        """Read a shard; with audio=False only what a planner needs."""
        path = Path(path)
        with np.load(path.with_suffix(".npz")) as data:
            keys = ["start", "length", "onset", "offset"] + (["audio", "track"] if audio else [])
            arrays: dict[str, Any] = {k: data[k] for k in keys}
        if not audio:
            arrays |= {"audio": np.empty(0, np.int16), "track": np.empty(0, np.uint8)}
        meta = json.loads(path.with_suffix(".json").read_text())
        return cls(**arrays, words=meta["words"], source=meta["source"])


def build_shard(clips: list[dict[str, Any]], source: str) -> Shard:
    """Join clips (keys audio int16, track uint8 at 100 Hz, onset, offset, words) into one shard."""
    audio, track, start, length = [], [], [], []
    position = 0
    for clip in clips:
        n = len(clip["audio"])
        whole = -(-n // 160) * 160 + 160
        audio.append(np.pad(clip["audio"], (0, whole - n)))
        labels = clip["track"][: whole // 160]
        track.append(np.pad(labels, (0, whole // 160 - len(labels))).astype(np.uint8))
        start.append(position)
        length.append(n)
        position += whole
    return Shard(
        np.concatenate(audio),
        np.concatenate(track),
        np.array(start, np.int64),
        np.array(length, np.int64),
        np.array([c["onset"] for c in clips], np.int64),
        np.array([c["offset"] for c in clips], np.int64),
        [c["words"] for c in clips],
        source,
    )


def word_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """(edit distance in words, words of the reference)."""
    ref, hyp = reference.split(), hypothesis.split()
    row = list(range(len(hyp) + 1))
    for i, r in enumerate(ref, 1):
        previous, row[0] = row[0], i
        for j, h in enumerate(hyp, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (r != h))
    return row[-1], len(ref)
