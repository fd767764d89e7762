"""Decode files of plain samples with libsndfile. Knows nothing of resampling.

Its domain is WAV of every subtype, RF64, W64, AIFF, AU, CAF and the like. Compressed streams are
left to :mod:`voxmlx.audio.ffmpeg`: libsndfile gives up at the first damaged frame, and its MP3
decoder writes to standard error even about sound files.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import soundfile

from voxmlx.audio.pcm import block_frames, check_channels, mix_to_mono
from voxmlx.audio.source import SteadyFile

logger = logging.getLogger(__name__)

_COMPRESSED = (b"ID3", b"OggS", b"fLaC")

_UNKNOWN_SIZE = 0x7FFFF000
"""Programs that write WAV to a pipe announce this much or more."""

_CUT_SHORT = re.compile(r"^ *(?:data|SSND) *: (\d+) \(should be (\d+)\)", re.MULTILINE)


class SoundFileDecoder:
    """Blocks of mono samples of one file.

    Args:
        file: Unbuffered and seekable, at its start. Not closed by this class.
        name: Of the file, for messages.

    Raises:
        AudioError: If it has too many channels.
        ValueError: If the file is not one for libsndfile, or its header says that it is empty.
    """

    def __init__(self, file: BinaryIO, name: str):
        head = file.read(4)
        file.seek(0)
        if head.startswith(_COMPRESSED) or _is_mpeg(head):
            raise ValueError("a compressed stream")
        in_memory = isinstance(file, io.BytesIO)
        try:
            # With a descriptor libsndfile reads by itself, and looks at no file name.
            self._file = soundfile.SoundFile(
                SteadyFile(file) if in_memory else file.fileno(), closefd=False
            )
        except soundfile.LibsndfileError as error:
            raise ValueError(str(error)) from error
        # A stream's header may say 0 frames because its length was never filled in.
        if self._file.frames == 0 or self._file.subtype.startswith("MPEG"):
            self._file.close()
            raise ValueError("no samples, or a compressed stream")
        check_channels(self._file.channels, name)
        self._name = name
        self.duration_s: float | None = self._file.frames / self._file.samplerate

    def blocks(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Yield the sample rate and the next samples, ``(n,)`` float32, as far as they can be read.

        What is missing at the end is logged as a warning.
        """
        rate: int = self._file.samplerate
        n_read = 0
        while True:
            try:
                samples = self._file.read(block_frames(rate), dtype="float32", always_2d=True)
            except soundfile.LibsndfileError:
                if n_read:
                    logger.warning("%s: damaged after %.1f s", self._name, n_read / rate)
                return
            if not len(samples):
                break
            n_read += len(samples)
            yield rate, mix_to_mono(samples)
        cut = _CUT_SHORT.search(self._file.extra_info)
        if cut is not None and int(cut[2]) < int(cut[1]) < _UNKNOWN_SIZE:
            logger.warning(
                "%s: cut short; holds %s of the %s bytes that its header announces",
                self._name,
                cut[2],
                cut[1],
            )

    def close(self) -> None:
        """Release the decoder."""
        self._file.close()


def _is_mpeg(head: bytes) -> bool:
    """Whether the first bytes are the sync word of an MPEG audio frame (11 bits set)."""
    return len(head) >= 2 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0
