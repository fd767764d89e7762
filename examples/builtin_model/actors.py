"""Step 1c: actors' lines of two adventure games as recordings with their texts, for align_real.py.

    python actors.py --sky DIR --program scummvm --queen queen.1c --out SPEECH/actors

`DIR` is usr/share/scummvm/beneath-a-steel-sky of Debian's beneath-a-steel-sky 0.0372-8 ((c)
Revolution Software Ltd), `queen.1c` lies in flight-of-the-amazon-queen 1.0.0-9 ((c) John Passfield
and Steven Stamatiadis): both may be modified and passed on, named as modified, without a fee for
the game. `scummvm` is the program of Debian 2.7.0, which has the code of the first game's texts.
Both games name each file of speech by its line of text, so the texts are the games' own.
"""

from __future__ import annotations

import argparse
import io
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr
from align_real import spoken

Line = tuple[str, str, np.ndarray]  # name, text, (n,) float32 at 11,025 Hz
RATE = 11_025
COMPRESSION = 0.99  # of Opus: 11 kb/s
LEAST_WORDS = 3
NOISES = re.compile(
    r"([a-z])\1\1|[^ -~]|unga|whoop|uck|"
    r"\b(h[ae]+h?|huh|u[gn]+h|argh|eep|oop|grr|shh|hm+|um+)\b"
)

# Beneath a Steel Sky
SPEECH = 50_000  # number of the first file of speech
TEXT = 60_600  # number of the first file of text
SECTIONS = (0, 600, 1_100, 2_430, 3_380, 4_530, 5_080, 5_230)  # their first lines of speech
HEADER = 22  # bytes before a packed file
TREE = bytes((1, 20, 0, 2, 7, 0, 3, 4, 0, 0, 0, 32, 5, 6, 0, 0, 0, 101))  # how the code begins


class Bits:
    """Reads bits of little-endian 16-bit words, lowest first, with plain bytes in between."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at, self.held, self.count = data, at, 0, 0

    def _fill(self, count: int) -> None:
        while self.count < count:
            word = int.from_bytes(self.data[self.at : self.at + 2], "little")
            self.held |= word << self.count
            self.at += 2
            self.count += 16

    def take(self, count: int) -> int:
        """The next bits as a number."""
        self._fill(count)
        value = self.held & ((1 << count) - 1)
        self.held >>= count
        self.count -= count
        return value

    def code(self) -> tuple[int, list[tuple[int, int]]]:
        """A table by the next bits: their number, and (length, value) of each code."""
        lengths = [self.take(4) for _ in range(self.take(5))]
        longest = max(lengths, default=0)
        table, code = [(0, 0)] * (1 << longest), 0
        for length in range(1, 16):
            for value in (i for i, n in enumerate(lengths) if n == length):
                first = int(f"{code >> (16 - length):0{length}b}"[::-1], 2)
                for i in range(first, len(table), 1 << length):
                    table[i] = (length, value)
                code += 1 << (16 - length)
        return longest, table

    def number(self, code: tuple[int, list[tuple[int, int]]]) -> int:
        """A number by a table: 0 and 1 themselves, others as their count of bits and the bits."""
        longest, table = code
        self._fill(longest)
        length, value = table[self.held & ((1 << longest) - 1)]
        self.take(length)
        return value if value < 2 else self.take(value - 1) | 1 << (value - 1)

    def plain(self, count: int) -> bytes:
        """The bytes after the words that bits were taken of."""
        if self.count >= 16:
            self.take_back()
        self.at += count
        return self.data[self.at - count : self.at]

    def take_back(self) -> None:
        """Give the last word back, no bit of which was taken."""
        self.at -= 2
        self.count -= 16
        self.held &= (1 << self.count) - 1


def unpack(data: bytes) -> bytes:
    """What Rob Northen's compression (method 1) packed."""
    if data[:4] != b"RNC\1":
        raise ValueError(f"packed file begins with {data[:4]!r}, expected b'RNC\\x01'")
    bits, out = Bits(data, 18), bytearray()
    bits.take(2)
    for _ in range(data[17]):
        lengths, offsets, copies = bits.code(), bits.code(), bits.code()
        count = bits.take(16)
        for left in range(count, 0, -1):
            if plain := bits.number(lengths):
                out += bits.plain(plain)
            if left > 1:
                back = bits.number(offsets) + 1
                for _ in range(bits.number(copies) + 2):
                    out.append(out[-back])
    return bytes(out)


def sky_files(folder: Path) -> dict[int, bytes]:
    """The game's files by number, unpacked where they are packed."""
    table, data = (folder / "sky.dnr").read_bytes(), (folder / "sky.dsk").read_bytes()
    found = {}
    for at in range(4, len(table) - 7, 8):
        number = int.from_bytes(table[at : at + 2], "little")
        start = int.from_bytes(table[at + 2 : at + 5], "little")
        size = int.from_bytes(table[at + 5 : at + 8], "little") & 0x3FFFFF
        start = (start & 0x7FFFFF) * (16 if start >> 23 else 1)
        file = data[start : start + size]
        if number >= SPEECH:
            found[number] = unpack(file[HEADER:]) if file[HEADER:][:4] == b"RNC\1" else file
    return found


def sky_texts(data: bytes, tree: bytes) -> list[str]:
    """The lines of a file of texts.

    It holds the place of the lines' sizes and that of their bits, the sizes of blocks of 32 lines,
    and the size of each line; sizes are in pairs of bits. The tree is three bytes a node: left and
    right child, letter.
    """
    sizes, base = struct.unpack("<2H", data[:4])
    blocks = struct.unpack(f"<{(sizes - 4) // 2}H", data[4:sizes])
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    lines = []
    for block in range(len(blocks) + 1):
        at = base * 4 + sum(blocks[:block])
        for place in range(sizes + 32 * block, min(sizes + 32 * block + 32, len(data))):
            text, node, bit = "", 0, 2 * at
            while bit < len(bits) and not text.endswith("\0"):
                node = tree[3 * node + int(bits[bit])]
                bit += 1
                if not any(tree[3 * node : 3 * node + 2]):
                    text, node = text + chr(tree[3 * node + 2]), 0
            lines.append(text.rstrip("\0"))
            at += (data[place] & 127) * (8 if data[place] & 128 else 1)
    return lines


def sky(folder: Path, program: Path) -> Iterator[Line]:
    """The lines of Beneath a Steel Sky: unsigned bytes."""
    code = program.read_bytes()
    tree = code[code.index(TREE) :][: 3 * 256]
    files = sky_files(folder)
    for section, first in enumerate(SECTIONS):
        texts = sky_texts(files[TEXT + section], tree) if TEXT + section in files else []
        stop = [*SECTIONS, 1 << 16][section + 1] - first
        for i, text in enumerate(texts[:stop]):
            if SPEECH + first + i in files:
                sound = np.frombuffer(files[SPEECH + first + i], np.uint8)
                yield f"sky{first + i:04d}", text, (sound.astype(np.float32) - 128) / 128


def queen_files(path: Path) -> dict[str, bytes]:
    """The game's files by name; the number of them lies at byte 13, 21 bytes on each follow."""
    data = path.read_bytes()
    found = {}
    for at in range(15, 15 + 21 * int.from_bytes(data[13:15], "big"), 21):
        start, size = struct.unpack(">II", data[at + 13 : at + 21])
        found[data[at : at + 12].split(b"\0")[0].decode()] = data[start : start + size]
    return found


def queen_string(data: bytes, at: int) -> tuple[str, int]:
    """A string with its length before it, and where the next thing is, four bytes wide."""
    stop = at + 1 + data[at]
    return data[at + 1 : stop].decode("latin-1"), (stop + 3) & ~3


def queen_segments(text: str) -> list[str]:
    """What is said at one go: stars with two letters (XY: 13) part it; GD and GM are gestures."""
    text = re.sub(r"\*(GD|GM)", "", text)
    parts = re.split(r"\*(?:XY.{11}|..)", text)
    return parts if parts[-1] else parts[:-1]


def queen(path: Path) -> Iterator[Line]:
    """What people say to the hero of Flight of the Amazon Queen: MP3.

    A dialogue file holds after 20 bytes its number at 4, how many lines the other has at 8 and
    where they are at 22; each has its id two bytes on.
    """
    files = queen_files(path)
    for name, data in files.items():
        if not name.endswith(".DOG"):
            continue
        data = data[20:]
        number, _, lines = struct.unpack(">3h", data[4:10])
        at = int.from_bytes(data[22:24], "big")
        for _ in range(lines):
            id_ = int.from_bytes(data[at + 2 : at + 4], "big")
            text, at = queen_string(data, at + 4)
            for i, part in enumerate(queen_segments(text)):
                file = f"{number:02d}{id_:04X}P{i + 1:X}"
                if f"{file}.SB" in files:
                    sound, _ = soundfile.read(io.BytesIO(files[f"{file}.SB"]), dtype="float32")
                    yield f"queen{file}", part, sound


def trimmed(wave: np.ndarray) -> np.ndarray:
    """The sound with a tenth of a second before and after what is within 36 dB of its loudest."""
    frames = wave[: len(wave) // 160 * 160].reshape(-1, 160)
    power = (frames**2).mean(1)
    loud = np.flatnonzero(power > power.max() * 2.5e-4)
    return wave[max(0, loud[0] - 10) * 160 : (loud[-1] + 11) * 160]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("--sky", "--program", "--queen", "--out"):
        parser.add_argument(name, type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    seconds, count = 0.0, 0
    with open(args.out / "text.tsv", "w") as table:
        for lines in (sky(args.sky, args.program), queen(args.queen)):
            for name, text, sound in lines:
                words = None if NOISES.search(text.lower()) else spoken(text)
                if words is None or len(words.split()) < LEAST_WORDS or len(sound) < RATE // 2:
                    continue
                wave = trimmed(soxr.resample(sound - sound.mean(), RATE, 16_000))
                wave = wave / max(1e-3, float(np.abs(wave).max())) * 0.7
                soundfile.write(
                    args.out / f"{name}.opus",
                    wave,
                    16_000,
                    format="OGG",
                    subtype="OPUS",
                    compression_level=COMPRESSION,
                )
                print(f"{name}.opus", words, sep="\t", file=table)
                seconds, count = seconds + len(wave) / 16_000, count + 1
    print(f"{count} lines, {seconds / 3600:.2f} h")


if __name__ == "__main__":
    main()
