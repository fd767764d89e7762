"""Samples of every number type and channel count, as mono float32 in [-1, 1].

Knows nothing of files and sample rate conversion.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from voxmlx.audio.resample import MAX_RATE, MIN_RATE
from voxmlx.errors import AudioError

Float32Array = npt.NDArray[np.float32]

MAX_CHANNELS = 64
"""More channels than any recorder has; more columns than this are a transposed array."""

BLOCK_S = 2.0
"""Length of the pieces that decoders return, in seconds."""

_FULL_SCALE = {"int8": 2.0**7, "uint8": 2.0**7, "int16": 2.0**15, "int32": 2.0**31}


def block_frames(sample_rate: int) -> int:
    """Samples of each channel in one block of :data:`BLOCK_S`, for any rate a header may name."""
    return round(BLOCK_S * min(max(sample_rate, MIN_RATE), MAX_RATE))


def check_channels(n_channels: int, name: str) -> None:
    """Refuse more than :data:`MAX_CHANNELS`: one block of them would be too large.

    Raises:
        AudioError: If there are more.
    """
    if n_channels > MAX_CHANNELS:
        raise AudioError(
            f"{name}: has {n_channels} channels, expected at most {MAX_CHANNELS}; mix them down"
        )


def mix_to_mono(samples: npt.NDArray[Any]) -> Float32Array:
    """Average the channels of PCM samples.

    Args:
        samples: ``(n, channels)``; floating point in [-1, 1], or int8, int16, int32 or uint8 at
            full scale.

    Returns:
        ``(n,)`` float32. NaN and infinite samples stay what they are.
    """
    n, n_channels = samples.shape
    kind = samples.dtype.name
    mono = np.zeros(n)
    with np.errstate(over="ignore", invalid="ignore"):  # the reader reports such samples
        for channel in samples.T:  # whole columns: much faster than a mean over a short last axis
            mono += channel
        if kind == "uint8":
            mono -= n_channels * _FULL_SCALE[kind]
        mono /= n_channels * _FULL_SCALE.get(kind, 1.0)
        return mono.astype(np.float32)


class ArrayDecoder:
    """Blocks of mono samples from an array in memory.

    Args:
        array: NumPy or MLX array (or one that NumPy can convert), ``(n,)`` or ``(n, channels)``.
        sample_rate: In Hz; a whole number.

    Raises:
        TypeError: If the numbers are of a type without a full scale, such as int64.
        ValueError: If the shape or the sample rate cannot be those of sound.
    """

    def __init__(self, array: Any, sample_rate: float | None):
        self.sample_rate = _checked_rate(sample_rate)
        samples = _to_numpy(array)
        if samples.dtype.kind != "f" and samples.dtype.name not in _FULL_SCALE:
            raise TypeError(
                f"audio arrays must be floating point, int8, int16, int32 or uint8, "
                f"got {samples.dtype}; convert to float32 in [-1, 1]"
            )
        if samples.ndim == 1:
            samples = samples[:, None]
        if samples.ndim != 2 or not 1 <= samples.shape[1] <= MAX_CHANNELS:
            raise ValueError(
                f"audio arrays must be (n,) or (n, channels) with 1 to {MAX_CHANNELS} channels, "
                f"got {tuple(array.shape)}; transpose (channels, n)"
            )
        self._samples = samples
        self.duration_s: float | None = len(samples) / self.sample_rate

    def blocks(self) -> Iterator[tuple[int, Float32Array]]:
        """Yield the sample rate and the next samples, ``(n,)`` float32."""
        step = block_frames(self.sample_rate)
        for start in range(0, len(self._samples), step):
            yield self.sample_rate, mix_to_mono(self._samples[start : start + step])

    def close(self) -> None:
        """Do nothing: the array is the caller's."""


def is_array(source: object) -> bool:
    """Whether ``source`` is an array of NumPy, MLX or another library that NumPy can convert."""
    return hasattr(source, "__array__")


def _to_numpy(array: Any) -> npt.NDArray[Any]:
    """Convert without copying where possible. MLX is used only if the caller has imported it."""
    mx = sys.modules.get("mlx.core")
    if mx is not None and isinstance(array, mx.array) and array.dtype == mx.bfloat16:
        array = array.astype(mx.float32)  # NumPy has no bfloat16
    return np.asarray(array)


def _checked_rate(sample_rate: float | None) -> int:
    if sample_rate is None:
        raise ValueError("an audio array needs sample_rate=, its rate in Hz")
    if not MIN_RATE <= sample_rate <= MAX_RATE or sample_rate != int(sample_rate):
        raise ValueError(
            f"sample_rate must be a whole number from {MIN_RATE} to {MAX_RATE} Hz, "
            f"got {sample_rate!r}"
        )
    return int(sample_rate)
