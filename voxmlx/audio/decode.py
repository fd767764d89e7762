"""Recordings of any kind as a stream of mono float32 samples at 16 kHz.

Joins the parts of this folder: :mod:`~voxmlx.audio.source` opens, :mod:`~voxmlx.audio.libsndfile`
or :mod:`~voxmlx.audio.ffmpeg` decodes, :mod:`~voxmlx.audio.resample` converts the rate. The content
decides how a file is read, never its extension. Nothing is held whole: memory does not grow with
the length of a file. Knows nothing of mel frames or models.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from voxmlx.audio.libsndfile import SoundFileDecoder
from voxmlx.audio.pcm import ArrayDecoder, is_array
from voxmlx.audio.resample import Resampler
from voxmlx.audio.source import FileSource, describe, open_file
from voxmlx.errors import AudioError

if TYPE_CHECKING:
    import mlx.core as mx  # decoding needs no MLX

Float32Array = npt.NDArray[np.float32]
AudioSource: TypeAlias = "FileSource | npt.NDArray[Any] | mx.array"

SAMPLE_RATE = 16000
"""Rate of everything that leaves this module, in Hz."""

_LOUDEST = 100.0
"""40 dB above full scale: floating-point samples beyond it were never scaled to [-1, 1]."""


class Decoder(Protocol):
    """What a decoder offers: blocks of about two seconds of mono samples with their rate."""

    duration_s: float | None

    def blocks(self) -> Iterator[tuple[int, Float32Array]]:
        """Yield the sample rate and ``(n,)`` float32 samples; the rate may change."""

    def close(self) -> None:
        """Release what is held."""


class AudioReader:
    """One recording, read once from its start: iterate over it for ``(n,)`` float32 chunks.

    Chunks hold mono sound at 16 kHz, about two seconds each, fewer at the end. A context manager;
    reading to the end closes it too.

    Attributes:
        name: What messages call the recording.
        duration_s: Its length as announced, in seconds: exact for plain samples, an estimate for
            some compressed formats, ``None`` if unknown.
    """

    def __init__(self, name: str, decoder: Decoder, file: BinaryIO | None = None):
        self.name = name
        self.duration_s = decoder.duration_s
        self._decoder = decoder
        self._file = file
        self._chunks = self._resampled()
        try:
            self._first = next(self._chunks, None)
            if self._first is None:
                raise AudioError(f"{name}: holds no samples that can be decoded; record it again")
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Float32Array]:
        """Yield the chunks that were not read yet.

        Raises:
            AudioError: At a sample that is not a number, or far outside [-1, 1].
        """
        try:
            if self._first is not None:
                first, self._first = self._first, None
                yield first
            yield from self._chunks
        finally:
            self.close()

    def __enter__(self) -> AudioReader:
        """Return the reader."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the reader."""
        self.close()

    def close(self) -> None:
        """Release the file; the reader yields nothing more. Safe to call twice."""
        self._first = None
        self._chunks.close()
        self._decoder.close()
        if self._file is not None:
            self._file.close()

    def _resampled(self) -> Generator[Float32Array, None, None]:
        resampler: Resampler | None = None
        position_s = 0.0
        for rate, samples in self._decoder.blocks():
            _check_samples(samples, self.name, position_s, rate)
            position_s += len(samples) / rate
            if resampler is None or resampler.rate_in != rate:
                if resampler is not None:
                    yield resampler.flush()
                resampler = self._new_resampler(rate)
            chunk = resampler.process(samples)
            if len(chunk):
                yield chunk
        if resampler is not None:
            tail = resampler.flush()
            if len(tail):
                yield tail

    def _new_resampler(self, rate: int) -> Resampler:
        try:
            return Resampler(rate, SAMPLE_RATE)
        except ValueError as error:
            raise AudioError(f"{self.name}: its sample rate is {rate} Hz; {error}") from error


def open_audio(source: AudioSource, sample_rate: float | None = None) -> AudioReader:
    """Open a recording and decode its first seconds.

    Args:
        source: A path, ``-`` for standard input, bytes, a binary file, or a NumPy or MLX array of
            ``(n,)`` or ``(n, channels)`` samples. An open file is read from its start and not
            closed. Every channel is averaged; videos give their best sound track.
        sample_rate: Rate of an array in Hz; not for files, whose header holds it.

    Returns:
        A reader of ``(n,)`` float32 chunks of mono sound at 16 kHz.

    Raises:
        AudioError: If the recording cannot be read or holds no samples.
        TypeError: If ``source`` is of no such kind.
        ValueError: If the array's shape or ``sample_rate`` is wrong or missing.
    """
    name = describe(source)
    if is_array(source):
        return AudioReader(name, ArrayDecoder(source, sample_rate))
    if sample_rate is not None:
        raise ValueError(
            f"sample_rate= is for arrays, got {sample_rate!r} with {name}, whose header holds it"
        )
    file = open_file(source)
    try:
        if not file.seek(0, os.SEEK_END):
            raise AudioError(f"{name}: is empty; give a recording")
        file.seek(0)
        return AudioReader(name, _open_decoder(file, name), file)
    except BaseException:
        file.close()
        raise


def read_audio(source: AudioSource, sample_rate: float | None = None) -> Float32Array:
    """Read a whole recording; see :func:`open_audio` for the arguments and errors.

    Returns:
        ``(n,)`` float32 mono samples at 16 kHz.
    """
    samples = bytearray()  # grows in place, where joining a list would need twice the memory
    with open_audio(source, sample_rate) as reader:
        for chunk in reader:
            samples += chunk.tobytes()
    return np.frombuffer(samples, np.float32)


def _open_decoder(file: BinaryIO, name: str) -> Decoder:
    try:
        return SoundFileDecoder(file, name)
    except ValueError:
        from voxmlx.audio.ffmpeg import FFmpegDecoder  # a third of the import time of the package

        file.seek(0)
        return FFmpegDecoder(file, name)


def _check_samples(samples: Float32Array, name: str, position_s: float, rate: int) -> None:
    low, high = samples.min(), samples.max()  # a NaN wins both
    if -_LOUDEST <= low and high <= _LOUDEST:
        return
    index = int(np.argmax(~(np.abs(samples) <= _LOUDEST)))
    raise AudioError(
        f"{name}: the sample at {position_s + index / rate:.3f} s is {samples[index]:g}; "
        "expected samples in [-1, 1]; repair or scale them"
    )
