"""How far float32 rotary angles are off at late positions, and what re-anchoring adds.

    python benchmarks/rope_error.py

For normal 128-wide queries and keys up to 750 positions apart: rms error of a score against
float64, with keys in float32, in bfloat16, and in float32 but turned back by about half their
position.
"""

from __future__ import annotations

import mlx.core as mx
import numpy as np

K, THETA, N_PAIRS = 128, 1e6, 400
FREQUENCIES = THETA ** (-np.arange(0, K, 2) / K)


def exact(x: np.ndarray, position: int) -> np.ndarray:
    """Rotate one vector in float64."""
    angle = position * FREQUENCIES
    even, odd = x[0::2].astype(np.float64), x[1::2].astype(np.float64)
    out = np.empty(K)
    out[0::2] = even * np.cos(angle) - odd * np.sin(angle)
    out[1::2] = even * np.sin(angle) + odd * np.cos(angle)
    return out


def rotated(x: np.ndarray, *positions: int, dtype: mx.Dtype = mx.float32) -> np.ndarray:
    """Rotate one vector by MLX, position after position."""
    y = mx.array(x, dtype)[None, None, None]
    # No powers of two: their products with a frequency are exact.
    for position in positions:
        offset = mx.array([position], dtype=mx.int32)
        y = mx.fast.rope(y, K, traditional=True, base=THETA, scale=1.0, offset=offset)
    return np.array(y.astype(mx.float32))[0, 0, 0].astype(np.float64)


def main() -> None:
    rng = np.random.default_rng(0)
    print("position  float32    bfloat16   re-anchored")
    # No powers of two: their products with a frequency are exact.
    for position in (1000, 4000, 8000, 16000, 33000, 65000, 130000, 270000, 1080000):
        errors = []
        for _ in range(N_PAIRS):
            q, k = rng.standard_normal((2, K)).astype(np.float32)
            distance = int(rng.integers(1, 750))
            score = exact(q, distance) @ exact(k, 0)
            at = position - distance
            half = position // 2 + 37
            errors.append(
                [
                    rotated(q, position) @ rotated(k, at) - score,
                    rotated(q, position, dtype=mx.bfloat16) @ rotated(k, at, dtype=mx.bfloat16)
                    - score,
                    rotated(q, position - half) @ rotated(k, at, -half) - score,
                ]
            )
        rms = np.sqrt(np.mean(np.square(errors), axis=0))
        print(f"{position:8d}  " + "  ".join(f"{value:.2e}" for value in rms))


if __name__ == "__main__":
    main()
