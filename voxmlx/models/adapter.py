"""The adapter: audio frames (50 Hz) of the encoder's width to decoder positions (12.5 Hz)."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from voxmlx.kernels.rows import gelu
from voxmlx.models.fuse import linear


class Adapter(nn.Module):
    """Join ``factor`` neighbouring frames and project them to the decoder's width.

    Args:
        in_dims: Width of an audio frame.
        out_dims: Width of the decoder.
        factor: Frames joined into one position.
    """

    def __init__(self, in_dims: int, out_dims: int, factor: int):
        super().__init__()
        self.factor = factor
        self.linear_1 = nn.Linear(factor * in_dims, out_dims, bias=False)
        self.linear_2 = nn.Linear(out_dims, out_dims, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        """Map whole groups, ``(B, T, in) -> (B, T // factor, out)``; ``T`` is a multiple of factor.

        Raises:
            ValueError: If ``T`` is not a multiple of ``factor``.
        """
        B, T, D = x.shape
        if T % self.factor:
            raise ValueError(f"T must be a multiple of {self.factor}, got {T}")
        x = x.reshape(B * T // self.factor, self.factor * D)
        x = linear(self.linear_2, gelu(linear(self.linear_1, x)))
        return x.reshape(B, T // self.factor, -1)

    def step(self, x: mx.array, tail: mx.array | None) -> tuple[mx.array, mx.array]:
        """Map the next frames of a stream to ``(B, n, out)`` and the frames left over."""
        if tail is not None:
            x = mx.concatenate([tail, x], axis=1)
        n = x.shape[1] // self.factor * self.factor
        return self(x[:, :n]), x[:, n:]
