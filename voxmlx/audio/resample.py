"""Change the sample rate of a mono stream. Knows nothing of files or channels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import soxr

MIN_RATE = 1_000
MAX_RATE = 768_000
"""Rates that recordings of speech have, in Hz; outside them a header is taken to be wrong."""


class Resampler:
    """Streaming sample rate conversion with soxr's HQ filter (20-bit, linear phase).

    The delay of the filter is compensated: output sample ``i`` lies at the time
    ``i / rate_out`` of the input. ``n`` samples in all give ``n * rate_out / rate_in`` samples,
    rounded, whatever the pieces they come in, and the same bits for every split.

    Args:
        rate_in: Rate of the samples given to :meth:`process`, in Hz.
        rate_out: Rate of the samples returned, in Hz.

    Raises:
        ValueError: If a rate is not in 1 kHz to 768 kHz.
    """

    def __init__(self, rate_in: int, rate_out: int = 16000):
        for name, rate in (("rate_in", rate_in), ("rate_out", rate_out)):
            if not MIN_RATE <= rate <= MAX_RATE:
                raise ValueError(f"{name} must be {MIN_RATE} to {MAX_RATE} Hz, got {rate!r}")
        self.rate_in = rate_in
        self.rate_out = rate_out
        self._stream = self._open()

    def _open(self) -> soxr.ResampleStream | None:
        if self.rate_in == self.rate_out:
            return None
        return soxr.ResampleStream(
            self.rate_in, self.rate_out, num_channels=1, dtype="float32", quality="HQ"
        )

    def process(self, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Convert the next samples of the stream.

        Args:
            samples: ``(n,)`` float32; ``n`` may be 0.

        Returns:
            What is finished, ``(m,)`` float32; ``m`` may be 0. ``samples`` itself if the rates are
            equal.
        """
        if self._stream is None or not len(samples):
            return samples
        return self._stream.resample_chunk(samples)

    def flush(self) -> npt.NDArray[np.float32]:
        """End the stream: return its last samples and be ready for another one."""
        empty = np.zeros(0, np.float32)
        if self._stream is None:
            return empty
        tail = self._stream.resample_chunk(empty, last=True)
        self._stream = self._open()
        return tail
