"""Log-mel frames of 16 kHz sound, for a whole clip or piece by piece.

Knows nothing of files, of the encoder behind it, or of MLX. Everything is computed in float64 and
rounded to float32 once, at the end. Float32 transforms would not do: a loud tone leaves rounding
noise of 1e-7 of its own level in the quiet bins, which the logarithm turns into errors of 1e-3.

Letters: ``T`` frames, ``W`` samples of the window, ``F`` frequency bins, ``M`` mel bins.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from voxmlx.config import AudioConfig

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

SMALLEST_POWER = 1e-10
"""Floor of the mel power before the logarithm (Whisper)."""

DYNAMIC_RANGE = 8.0
"""Decades kept below the maximum (Whisper)."""

_BLOCK_FRAMES = 64  # 64 windows of 400 float64 are 0.2 MB: they stay in the cache of a core


def mel_filter_bank(n_bins: int = 201, n_mels: int = 128, sample_rate: int = 16000) -> Float32Array:
    """Triangular filters on the Slaney mel scale, each of the same area.

    The scale is linear below 1000 Hz (3 mel every 200 Hz) and logarithmic above (27 mel for a
    factor of 6.4), as in Slaney's Auditory Toolbox; the filters cover 0 Hz to half the sample rate.

    Args:
        n_bins: Frequency bins, from 0 Hz to half the sample rate.
        n_mels: Number of filters.
        sample_rate: In Hz.

    Returns:
        The bank, ``(n_bins, n_mels)``, computed in float64.
    """
    nyquist = sample_rate / 2
    bin_hz = np.linspace(0, nyquist, n_bins)
    log_step = math.log(6.4) / 27
    top = 15 + math.log(nyquist / 1000) / log_step if nyquist > 1000 else nyquist * 3 / 200
    mels = np.linspace(0, top, n_mels + 2)
    corner_hz = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp(log_step * (mels - 15)))

    distance = corner_hz[None, :] - bin_hz[:, None]  # (F, M + 2)
    width = np.diff(corner_hz)
    rising = -distance[:, :-2] / width[:-1]
    falling = distance[:, 2:] / width[1:]
    area = 2 / (corner_hz[2:] - corner_hz[:-2])
    bank = np.maximum(0, np.minimum(rising, falling)) * area
    return bank.astype(np.float32)


class LogMelSpectrogram:
    """Log-mel frames of mono sound, as Whisper computes them but with a fixed maximum.

    Frame ``i`` is centred on sample ``i * hop_length``: with a window of 400 and a hop of 160 it
    covers samples ``160 * i - 200`` to ``160 * i + 199``. A clip of ``n`` samples has
    ``n // hop_length`` frames. Samples before the first and after the last are zeros, except with
    ``global_log_mel_max=None``: there the clip is mirrored at both ends, as Whisper does.

    One object serves a clip (call it) or a stream (:meth:`feed` and :meth:`finish`). Every split of
    a stream gives the bits of the whole: no step mixes frames, so the number of frames computed
    together cannot change their rounding. For the same reason the filter bank is applied tap by tap
    and not as a matrix product.

    Args:
        config: Rates, window, number of mel bins and the fixed maximum.
    """

    def __init__(self, config: AudioConfig):
        self.config = config
        self._half = config.window_size // 2
        self.reset()

    def reset(self) -> None:
        """Forget the stream; the next :meth:`feed` starts a new one."""
        self._n_samples = 0
        self._n_frames = 0
        self._tail: Float32Array = np.zeros(self._half, np.float32)

    def __call__(self, samples: Float32Array) -> Float32Array:
        """Compute the frames of a whole clip. Leaves the state of the stream alone.

        Args:
            samples: ``(n,)`` float32.

        Returns:
            ``(n // hop_length, n_mels)`` float32.

        Raises:
            ValueError: If ``samples`` is not one-dimensional float32, or too short to be mirrored.
        """
        _check(samples)
        T = len(samples) // self.config.hop_length
        if self.config.global_log_mel_max is not None:
            return self._scale(self._log_mel(np.pad(samples, self._half), T))
        if len(samples) <= self._half:
            raise ValueError(
                f"a clip with its own maximum needs more than {self._half} samples, "
                f"got {len(samples)}"
            )
        return self._scale(self._log_mel(np.pad(samples, self._half, mode="reflect"), T))

    def feed(self, samples: Float32Array) -> Float32Array:
        """Add samples to the stream and return the frames that are now complete.

        Args:
            samples: The next ``(n,)`` float32 samples; ``n`` may be 0.

        Returns:
            ``(T, n_mels)`` float32; ``T`` may be 0. Frame ``i`` is complete when sample
            ``i * hop_length + window_size / 2 - 1`` is there.

        Raises:
            ValueError: If ``samples`` is not one-dimensional float32, or if
                ``global_log_mel_max`` is ``None``: the maximum of a stream is not known.
        """
        _check(samples)
        if self.config.global_log_mel_max is None:
            raise ValueError("a stream needs a global_log_mel_max; call the object on a whole clip")
        self._n_samples += len(samples)
        return self._advance(np.concatenate((self._tail, samples)))

    def finish(self) -> Float32Array:
        """Return the frames that reach past the end of the stream, and :meth:`reset`.

        Returns:
            ``(T, n_mels)`` float32; with those of :meth:`feed` there are ``n // hop_length``.
        """
        hop = self.config.hop_length
        T = self._n_samples // hop - self._n_frames
        missing = (T - 1) * hop + self.config.window_size - len(self._tail)
        padding = np.zeros(max(0, missing), np.float32)
        frames = self._scale(self._log_mel(np.concatenate((self._tail, padding)), T))
        self.reset()
        return frames

    def _advance(self, samples: Float32Array) -> Float32Array:
        """Compute every frame that fits into ``samples`` and keep what the next ones need."""
        hop = self.config.hop_length
        T = n_windows(self.config, len(samples))
        self._tail = samples[T * hop :].copy()
        self._n_frames += T
        return self._scale(self._log_mel(samples, T))

    def _log_mel(self, samples: Float32Array, T: int) -> Float64Array:
        return _log_mel(self.config, [_windows(self.config, samples, T)])

    def _scale(self, log_mel: Float64Array) -> Float32Array:
        return _scale(log_mel, self.config.global_log_mel_max)


def frames_of(config: AudioConfig, pieces: Sequence[Float32Array]) -> list[Float32Array]:
    """Frames of several stretches of sound, computed together: the bits that each has alone.

    Args:
        config: Rates, window, number of mel bins and the fixed maximum, which must be known.
        pieces: ``(n,)`` float32 each; the first window begins at the first sample.

    Returns:
        ``(T, n_mels)`` float32 each, of all windows that fit into the piece.
    """
    views = [_windows(config, samples, n_windows(config, len(samples))) for samples in pieces]
    frames = _scale(_log_mel(config, views), config.global_log_mel_max)
    ends = np.cumsum([len(view) for view in views])
    return np.split(frames, ends[:-1])


def n_windows(config: AudioConfig, n_samples: int) -> int:
    """Windows that fit into so many samples."""
    return max(0, (n_samples - config.window_size) // config.hop_length + 1)


def _windows(config: AudioConfig, samples: Float32Array, T: int) -> Float32Array:
    """A view, ``(T, W)``; window ``i`` starts at sample ``i * hop``."""
    step = samples.itemsize
    strides = (config.hop_length * step, step)
    return np.ndarray((T, config.window_size), np.float32, samples, strides=strides)


def _log_mel(config: AudioConfig, windows: Iterable[Float32Array]) -> Float64Array:
    """Logarithm of the mel power of some arrays of windows, one after another, ``(T, M)``."""
    window, taps = _tables(config)
    powers = [np.empty((0, config.n_mels))]
    for parts in _blocks(windows):
        frames = parts[0] if len(parts) == 1 else np.concatenate(parts)
        spectrum = np.fft.rfft(frames * window)
        power = np.square(spectrum.real) + np.square(spectrum.imag)
        mel = np.zeros((len(power), config.n_mels))
        for first, bins, weights in taps:
            mel[:, first:] += power.take(bins, axis=1) * weights
        powers.append(mel)
    result = np.concatenate(powers)
    np.maximum(result, SMALLEST_POWER, out=result)
    return np.log10(result, out=result)


def _blocks(windows: Iterable[Float32Array]) -> Iterator[list[Float32Array]]:
    """The same windows in groups of at most ``_BLOCK_FRAMES``."""
    parts: list[Float32Array] = []
    n = 0
    for view in windows:
        for start in range(0, len(view), _BLOCK_FRAMES):
            part = view[start : start + _BLOCK_FRAMES]
            if n + len(part) > _BLOCK_FRAMES:
                yield parts
                parts, n = [], 0
            parts.append(part)
            n += len(part)
    if parts:
        yield parts


def _scale(log_mel: Float64Array, maximum: float | None) -> Float32Array:
    """Clamp to the dynamic range and map to about [-1, 1] (Whisper's ``(x + 4) / 4``).

    Args:
        log_mel: Changed.
        maximum: ``None`` takes that of ``log_mel``.
    """
    if maximum is None:
        maximum = log_mel.max()
    np.maximum(log_mel, maximum - DYNAMIC_RANGE, out=log_mel)
    log_mel += 4.0
    log_mel /= 4.0
    return log_mel.astype(np.float32)


_Taps = list[tuple[int, npt.NDArray[np.intp], Float64Array]]


@functools.cache
def _tables(config: AudioConfig) -> tuple[Float64Array, _Taps]:
    """The window and the filter bank's taps."""
    W = config.window_size
    bank = mel_filter_bank(W // 2 + 1, config.n_mels, config.sample_rate)
    return _hann_window(W), _filter_taps(bank)


def _hann_window(size: int) -> Float64Array:
    """The periodic Hann window, half way between the exact one and that of the reference.

    The reference (``torch.hann_window``) computes its angles in float32, which is up to 2.4e-7 off
    and moves quiet mel bins of speech by 2e-5. On speech the mean of the two stays within 1e-5 of
    float64 with either.
    """
    step = np.arange(size, dtype=np.float32)
    exact = 2 * np.pi * step.astype(np.float64) / size
    rounded = (step * np.float32(2 * np.pi / size)).astype(np.float64)
    return 0.5 - 0.25 * (np.cos(exact) + np.cos(rounded))


def _check(samples: Float32Array) -> None:
    if samples.ndim != 1 or samples.dtype != np.float32:
        raise ValueError(f"samples must be (n,) float32, got {samples.shape} {samples.dtype}")


def _filter_taps(bank: Float32Array) -> _Taps:
    """Split a filter bank into its first, second, … non-zero weights.

    Filters get wider with frequency, so the k-th weights belong to filters from ``first`` on.

    Args:
        bank: ``(F, M)``; the non-zero weights of a filter are neighbours.

    Returns:
        For each k: ``first``, and for every filter from there on the bin and the weight.
    """
    n_bins, n_mels = bank.shape
    starts = (bank > 0).argmax(axis=0)
    counts = (bank > 0).sum(axis=0)
    taps = []
    for k in range(counts.max()):
        first = int((counts > k).argmax())
        bins = np.minimum(starts[first:] + k, n_bins - 1)
        weights = bank[bins, np.arange(first, n_mels)].astype(np.float64)
        weights[counts[first:] <= k] = 0.0
        taps.append((first, bins, weights))
    return taps
