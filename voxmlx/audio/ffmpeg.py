"""Decode compressed audio and the sound of videos with FFmpeg's libraries (PyAV).

Knows nothing of resampling. Damaged packets are left out and logged; the rest is decoded.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, BinaryIO

import av
import numpy as np
import numpy.typing as npt

from voxmlx.audio.pcm import block_frames, check_channels, mix_to_mono
from voxmlx.audio.source import SteadyFile
from voxmlx.errors import AudioError

logger = logging.getLogger(__name__)

READABLE = "give a WAV, FLAC, MP3, Ogg, M4A, MP4, MKV or similar file"

# A recording may be a playlist or session description in disguise, which would make FFmpeg open
# other files or network connections. No protocol is allowed but the file it was given.
_OPTIONS = {"protocol_whitelist": "none"}


class FFmpegDecoder:
    """Blocks of mono samples of the best audio stream of one file.

    Args:
        file: Seekable, at its start. Not closed by this class.
        name: Of the file, for messages.

    Raises:
        AudioError: If the file is of no known format or holds no sound.
    """

    def __init__(self, file: BinaryIO, name: str):
        self._name = name
        try:
            self._container = av.open(
                SteadyFile(file), "r", container_options=_OPTIONS, metadata_errors="replace"
            )
        except av.FFmpegError as error:
            raise AudioError(f"{name}: not a recording in a known format; {READABLE}") from error
        except OSError as error:
            raise AudioError(f"{name}: cannot be read: {error.strerror}") from error
        try:
            self._stream = self._audio_stream()
        except AudioError:
            self._container.close()
            raise
        self.duration_s = self._announced_duration()

    def _audio_stream(self) -> av.AudioStream:
        stream = self._container.streams.best("audio")
        if not isinstance(stream, av.AudioStream):
            raise AudioError(f"{self._name}: holds no sound; {READABLE} with a sound track")
        if stream.codec_context is None:
            raise AudioError(f"{self._name}: its audio codec is unknown; {READABLE}")
        check_channels(stream.codec_context.channels, self._name)
        return stream

    def _announced_duration(self) -> float | None:
        """Seconds from the header, or FFmpeg's estimate from the bit rate."""
        if self._stream.duration is not None and self._stream.time_base is not None:
            return float(self._stream.duration * self._stream.time_base)
        if self._container.duration is not None:
            return self._container.duration / av.time_base
        return None

    def blocks(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Yield the sample rate and the next samples, ``(n,)`` float32.

        Rate and channel layout may change from block to block. What is damaged or missing is
        logged as a warning.
        """
        decoded_s = 0.0
        pending: list[av.AudioFrame] = []
        n_pending = 0
        for frame in self._frames():
            if pending and _layout(frame) != _layout(pending[0]):
                yield pending[0].sample_rate, _mono(pending)
                pending, n_pending = [], 0
            pending.append(frame)
            n_pending += frame.samples
            decoded_s += frame.samples / frame.sample_rate
            if n_pending >= block_frames(frame.sample_rate):
                yield frame.sample_rate, _mono(pending)
                pending, n_pending = [], 0
        if pending:
            yield pending[0].sample_rate, _mono(pending)
        self._report_missing(decoded_s)

    def _frames(self) -> Iterator[av.AudioFrame]:
        """Decode packet by packet, leaving out damaged ones."""
        n_damaged = 0
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, IndexError):
                break  # IndexError: PyAV ends so when streams appeared after the first packets
            except (av.FFmpegError, OSError) as error:
                logger.warning("%s: cannot be read to its end (%s)", self._name, error.strerror)
                break
            try:
                frames = packet.decode()
            except av.FFmpegError:
                n_damaged += 1
                continue
            for frame in frames:
                if isinstance(frame, av.AudioFrame) and frame.samples:
                    yield frame
        if n_damaged:
            logger.warning("%s: %d damaged packets are left out", self._name, n_damaged)

    def _report_missing(self, decoded_s: float) -> None:
        """Warn of a file that ends long before its announced end."""
        of_stream = self._stream.duration is not None or len(self._container.streams) == 1
        if not of_stream or self.duration_s is None or not decoded_s:
            return
        if decoded_s < min(0.9 * self.duration_s, self.duration_s - 1):
            logger.warning(
                "%s: cut short; holds %.1f s where %.1f s are announced",
                self._name,
                decoded_s,
                self.duration_s,
            )

    def close(self) -> None:
        """Release the decoder."""
        self._container.close()


def _layout(frame: av.AudioFrame) -> tuple[int, int, str]:
    return frame.sample_rate, frame.layout.nb_channels, frame.format.name


def _mono(frames: list[av.AudioFrame]) -> npt.NDArray[np.float32]:
    """Join frames of one layout and average their channels."""
    arrays: list[npt.NDArray[Any]] = [frame.to_ndarray() for frame in frames]
    joined = np.concatenate(arrays, axis=1)
    if frames[0].format.is_planar:  # (channels, n)
        return mix_to_mono(joined.T)
    return mix_to_mono(joined.reshape(-1, frames[0].layout.nb_channels))
