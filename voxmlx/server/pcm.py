"""Raw audio bytes to samples, split anywhere. Knows encodings, not messages."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]


class PcmError(ValueError):
    """The bytes are not what was announced."""


def _mulaw_table() -> Samples:
    """Values of the 256 codes of ITU-T G.711 mu-law."""
    codes = ~np.arange(256) & 0xFF
    exponent, mantissa = (codes >> 4) & 7, codes & 15
    magnitude = ((2 * mantissa + 33) << exponent) - 33
    return (np.where(codes & 0x80, -magnitude, magnitude) / 8192).astype(np.float32)


def _alaw_table() -> Samples:
    """Values of the 256 codes of ITU-T G.711 A-law."""
    codes = np.arange(256) ^ 0x55
    exponent, mantissa = (codes >> 4) & 7, codes & 15
    magnitude = np.where(
        exponent, (2 * mantissa + 33) << np.maximum(exponent - 1, 0), 2 * mantissa + 1
    )
    return (np.where(codes & 0x80, magnitude, -magnitude) / 4096).astype(np.float32)


_TABLES = {"pcm_mulaw": _mulaw_table(), "pcm_alaw": _alaw_table()}
_DTYPES: dict[str, np.dtype[Any]] = {
    "pcm_s16le": np.dtype("<i2"),
    "pcm_s32le": np.dtype("<i4"),
    "pcm_f16le": np.dtype("<f2"),
    "pcm_f32le": np.dtype("<f4"),
    "pcm_mulaw": np.dtype("u1"),
    "pcm_alaw": np.dtype("u1"),
}
ENCODINGS = tuple(_DTYPES)
"""Names as Mistral's API has them."""


class PcmDecoder:
    """Turn pieces of a mono stream into samples; a sample cut in two is kept for the next piece.

    Args:
        encoding: One of :data:`ENCODINGS`.

    Raises:
        ValueError: If the encoding is unknown.
    """

    def __init__(self, encoding: str):
        if encoding not in _DTYPES:
            raise ValueError(f"encoding must be one of {', '.join(ENCODINGS)}, got {encoding!r}")
        self.encoding = encoding
        self._rest = b""

    def decode(self, data: bytes) -> Samples:
        """Samples that are complete now, ``(n,)`` in [-1, 1].

        Values that are not finite become 0, so that one bad float cannot spoil a whole stream.
        """
        dtype = _DTYPES[self.encoding]
        data = self._rest + data
        n = len(data) // dtype.itemsize
        values = np.frombuffer(data, dtype, n)
        self._rest = data[n * dtype.itemsize :]
        if self.encoding in _TABLES:
            return _TABLES[self.encoding][values]
        if dtype.kind == "i":
            scale = np.float64(2.0 ** (8 * dtype.itemsize - 1))
            return (values / scale).astype(np.float32)
        samples = values.astype(np.float32)
        samples[~np.isfinite(samples)] = 0
        return np.clip(samples, -1, 1)

    def clear(self) -> None:
        """Forget half a sample."""
        self._rest = b""


def from_base64(text: str) -> bytes:
    """Decode strictly.

    Raises:
        PcmError: If the text is not base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise PcmError("audio is not valid base64") from None
