"""Sound from a pipe as it comes: raw PCM, or WAV of any length.

A file would be opened by :mod:`voxmlx.audio.decode`, which needs to seek; a live pipe cannot wait
for its end. Knows nothing of models or text.
"""

from __future__ import annotations

import os
import select
import struct
import threading
from dataclasses import dataclass

import numpy as np

from voxmlx.audio.live import Float32Array, SampleQueue
from voxmlx.audio.pcm import mix_to_mono
from voxmlx.errors import AudioError

QUEUE_S = 60.0
"""How much is read ahead; then the pipe fills and its writer waits."""

SAMPLE_TYPES = {
    "u8": "u1",
    "s16le": "<i2",
    "s24le": "",
    "s32le": "<i4",
    "f32le": "<f4",
    "f64le": "<f8",
}
"""Raw sample types by FFmpeg's names, with NumPy's; it has none of 24 bits."""

_CONTAINERS = {
    b"fLaC": "FLAC",
    b"OggS": "Ogg",
    b"ID3": "MP3",
    b"FORM": "AIFF",
    b"\x1aE\xdf\xa3": "WebM",
}
_WAV_TYPES = {(1, 8): "u8", (1, 16): "s16le", (1, 24): "s24le", (1, 32): "s32le"}
_WAV_TYPES |= {(3, 32): "f32le", (3, 64): "f64le"}
_MAX_HEADER = 1 << 20
_POLL_S = 0.1
_READ_BYTES = 1 << 16
_MOST_READS = 16
"""Reads after :meth:`PipeSource.stop`: a pipe holds 64 kB (1 MB at most), its writer never ends."""


@dataclass(frozen=True)
class PcmFormat:
    """How raw samples are stored.

    Raises:
        ValueError: If a value is out of range.
    """

    sample_rate: int = 16000
    channels: int = 1
    sample_type: str = "s16le"

    def __post_init__(self) -> None:
        """Check the values."""
        if self.sample_type not in SAMPLE_TYPES:
            known = ", ".join(SAMPLE_TYPES)
            raise ValueError(f"sample_type must be one of {known}, got {self.sample_type!r}")
        if not 1 <= self.channels <= 64:
            raise ValueError(f"channels must be 1 to 64, got {self.channels!r}")

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of all channels."""
        code = SAMPLE_TYPES[self.sample_type]
        return self.channels * (np.dtype(code).itemsize if code else 3)

    def decode(self, data: bytes) -> Float32Array:
        """Whole frames as the average of their channels, ``(n,)`` float32."""
        code = SAMPLE_TYPES[self.sample_type]
        if code:
            samples = np.frombuffer(data, code)
        else:
            padded = np.zeros((len(data) // 3, 4), np.uint8)
            padded[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
            samples = padded.view("<i4")[:, 0]
        return mix_to_mono(samples.reshape(-1, self.channels))


class PipeSource:
    """A pipe, read by a thread of its own; see :class:`voxmlx.audio.live.LiveSource`.

    A stream that starts as WAV does is read as its header says, up to the end of its ``data`` chunk
    or, as live encoders leave its length open, of the pipe.

    Args:
        descriptor: File descriptor to read.
        name: What messages call it.
        raw: How samples are stored where there is no header.

    Raises:
        AudioError: If it is empty, or holds another container.
    """

    can_wait = True

    def __init__(self, descriptor: int, name: str, raw: PcmFormat):
        self._descriptor = descriptor
        self._name = name
        self._n_left: int | None = None
        self._stopping = False
        start = _read_exactly(descriptor, 4)
        if not start:
            raise AudioError(f"{name}: is empty; pipe sound in, as in: ffmpeg … -f wav - | …")
        for magic, kind in _CONTAINERS.items():
            if start.startswith(magic):
                raise AudioError(
                    f"{name}: holds {kind}, expected PCM or WAV; put ffmpeg -i - -f wav - before it"
                )
        if start in (b"RIFF", b"RF64"):
            self.format, self._n_left = _read_wav_header(descriptor, name)
            start = b""
        else:
            self.format = raw
        self.sample_rate = self.format.sample_rate
        self._queue = SampleQueue(round(QUEUE_S * self.sample_rate))
        threading.Thread(target=self._run, args=(start,), daemon=True).start()

    @property
    def n_dropped(self) -> int:
        """Nothing is lost: the writer waits."""
        return 0

    def read(self, timeout_s: float) -> Float32Array | None:
        """Take what has come; see :meth:`voxmlx.audio.live.LiveSource.read`."""
        return self._queue.take(timeout_s)

    def stop(self) -> None:
        """Read what is in the pipe by now and nothing more."""
        self._stopping = True

    def _run(self, rest: bytes) -> None:
        frame = self.format.frame_bytes
        n_more = _MOST_READS
        try:
            while self._n_left is None or self._n_left > 0:
                if self._stopping and not n_more:
                    break
                n_more -= self._stopping
                if not select.select([self._descriptor], [], [], _POLL_S)[0]:
                    if self._stopping:
                        break
                    continue
                data = os.read(self._descriptor, _READ_BYTES)
                if not data:
                    break
                if self._n_left is not None:
                    data = data[: self._n_left]
                    self._n_left -= len(data)
                data = rest + data
                n = len(data) // frame * frame
                rest = data[n:]
                self._queue.put(self.format.decode(data[:n]), wait=True)
        except OSError as error:
            self._queue.end(AudioError(f"{self._name}: cannot be read: {error.strerror}"))
        self._queue.end()


def _read_exactly(descriptor: int, n: int) -> bytes:
    """Read ``n`` bytes, fewer at the end."""
    data = b""
    while len(data) < n:
        piece = os.read(descriptor, n - len(data))
        if not piece:
            break
        data += piece
    return data


def _read_wav_header(descriptor: int, name: str) -> tuple[PcmFormat, int | None]:
    """Read behind ``RIFF`` up to the samples; returns their format and bytes, ``None`` if open."""

    def read(n: int) -> bytes:
        data = _read_exactly(descriptor, n) if n <= _MAX_HEADER else b""
        if len(data) < n:
            raise AudioError(f"{name}: its WAV header is cut short or broken")
        return data

    read(8)
    wav_format: PcmFormat | None = None
    while True:
        kind, size = struct.unpack("<4sI", read(8))
        if kind == b"data":
            break
        body = read(size + size % 2)
        if kind == b"fmt ":
            wav_format = _wav_format(body, name)
    if wav_format is None:
        raise AudioError(f"{name}: its WAV header has no fmt chunk before the samples")
    # Encoders that write to a pipe put the largest number, or none, where the length should be.
    return wav_format, None if size in (0, 0xFFFFFFFF) or size >= 0x7FFFF000 else size


def _wav_format(body: bytes, name: str) -> PcmFormat:
    if len(body) < 16:
        raise AudioError(f"{name}: its WAV header is cut short or broken")
    tag, channels, rate, _, _, bits = struct.unpack("<HHIIHH", body[:16])
    if tag == 0xFFFE and len(body) >= 26:  # extensible: the real tag starts a GUID
        tag = struct.unpack("<H", body[24:26])[0]
    sample_type = _WAV_TYPES.get((tag, bits))
    if sample_type is None:
        raise AudioError(
            f"{name}: holds WAV of type {tag} with {bits} bits, expected PCM; "
            "put ffmpeg -i - -f wav - before it"
        )
    try:
        return PcmFormat(rate, channels, sample_type)
    except ValueError as error:
        raise AudioError(f"{name}: its WAV header is broken: {error}") from error
