"""Small operations on rows, written for CUDA: MLX compiles its own for seconds when first used.

Elsewhere the same values come from MLX's operations. Knows arrays only.
"""

from __future__ import annotations

from collections.abc import Mapping

import mlx.core as mx
import mlx.nn as nn

from voxmlx.kernels.launch import on_cuda, run
from voxmlx.kernels.products import Packed

THREADS = 256

EACH = r"""
  const long i = static_cast<long>(blockIdx.x) * N + threadIdx.x;
  if (i < static_cast<long>(x_shape[0]) * D) {
    const float v = static_cast<float>(x[i]);
    y[i] = static_cast<T>(VALUE);
  }
"""

GELU = EACH.replace("VALUE", "0.5f * v * (1.0f + erff(v * 0.70710678f))")

ADD_BIAS = EACH.replace("VALUE", "v + static_cast<float>(bias[i % D])")

TAKE = r"""
  // Behind the last place that is given, the next steps follow.
  const int i = blockIdx.x, row = blockIdx.y, n = gridDim.x, n_given = places_shape[1];
  const int n_steps = x_shape[1], D = x_shape[2];
  const int beyond = max(0, i - n_given + 1);
  const int step = min(places[row * n_given + i - beyond] + beyond, n_steps - 1);
  const T* from = x + (static_cast<long>(row) * n_steps + step) * D;
  T* to = y + (static_cast<long>(row) * n + i) * D;
  for (int j = threadIdx.x; j < D; j += N) to[j] = from[j];
"""

EMBED = r"""
  // A thread unpacks the eight numbers of a word.
  const int n_words = words_shape[1], D = 8 * n_words, GROUPS = D / GS;
  const long row = ids[blockIdx.y];
  const int at = blockIdx.x * N + threadIdx.x;
  if (at < n_words) {
    const unsigned word = words[row * n_words + at];
    const long group = row * GROUPS + 8 * at / GS;
    const float scale = static_cast<float>(scales[group]);
    const float bias = static_cast<float>(biases[group]);
    T* to = y + static_cast<long>(blockIdx.y) * D + 8 * at;
#pragma unroll
    for (int i = 0; i < 8; i++) {
      to[i] = static_cast<T>(static_cast<float>(word >> (4 * i) & 15u) * scale + bias);
    }
  }
"""


def gelu(x: mx.array) -> mx.array:
    """``x * P(X < x)`` of a normal X, any shape."""
    return _each("gelu", GELU, {"x": x}) if on_cuda() else nn.gelu(x)


def add_bias(x: mx.array, bias: mx.array) -> mx.array:
    """The sum of ``(..., D)`` and ``(D,)`` of the same type."""
    return _each("add_bias", ADD_BIAS, {"x": x, "bias": bias}) if on_cuda() else x + bias


def _each(name: str, body: str, inputs: Mapping[str, mx.array]) -> mx.array:
    """A function of each number of ``x`` and of what belongs to its channel."""
    x = inputs["x"]
    rows = x.reshape(-1, x.shape[-1])
    (y,) = run(
        name,
        ("", body),
        {**inputs, "x": rows},
        {"y": (rows.shape, x.dtype)},
        {"D": x.shape[-1], "N": THREADS},
        (-(-rows.size // THREADS), 1, 1),
        THREADS,
        x.dtype,
    )
    return y.reshape(x.shape)


def take_steps(x: mx.array, places: mx.array, n: int) -> mx.array:
    """Some steps of every row.

    Args:
        x: ``(B, T, D)``.
        places: Steps to take, ``(B, m)`` int32, ``m`` at most ``n``; behind the last of them the
            next steps follow, as far as there are any.
        n: Steps of each row to take.

    Returns:
        ``(B, n, D)``.
    """
    B, T, D = x.shape
    if not on_cuda():
        behind = mx.maximum(mx.arange(n) - (places.shape[1] - 1), 0)
        given = mx.minimum(mx.arange(n), places.shape[1] - 1)
        steps = mx.minimum(mx.take(places, given, axis=1) + behind, T - 1)
        return mx.take_along_axis(x, steps[..., None], axis=1)
    (y,) = run(
        "take_steps",
        ("", TAKE),
        {"x": x, "places": places},
        {"y": ((B, n, D), x.dtype)},
        {"N": THREADS},
        (n, B, 1),
        THREADS,
        x.dtype,
    )
    return y


def embed_packed(ids: mx.array, packed: Packed, group_size: int) -> mx.array:
    """Rows of a table of 4 bits, ``(...) -> (..., D)`` in the type of its scales; on CUDA only.

    Args:
        ids: int32.
        packed: The table ``(V, D)``, its scales and biases.
        group_size: Weights that share a scale, a multiple of 8.
    """
    words, scales, biases = packed
    width = 8 * words.shape[1]
    (y,) = run(
        "embed_packed",
        ("", EMBED),
        {"ids": ids.reshape(-1), "words": words, "scales": scales, "biases": biases},
        {"y": ((ids.size, width), scales.dtype)},
        {"GS": group_size, "N": THREADS},
        (-(-words.shape[1] // THREADS), ids.size, 1),
        THREADS,
        scales.dtype,
    )
    return y.reshape(*ids.shape, width)
