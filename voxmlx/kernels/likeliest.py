"""The likeliest token of each row of logits and its log-probability, written for CUDA.

MLX's own reductions give a row to one processor; a vocabulary of 131,072 keeps it busy for longer
than a layer's products take.
"""

from __future__ import annotations

import mlx.core as mx

from voxmlx.kernels.launch import on_cuda, run

SHARE = 2048
"""Logits of a block."""

THREADS = 256

SEARCH = r"""
  // Each block's largest logit, the first place of it, and the sum of exponentials beside it.
  constexpr int WARPS = N / 32;
  const int V = logits_shape[1], n_parts = gridDim.x, t = threadIdx.x;
  const int row = blockIdx.y, begin = blockIdx.x * SHARE, end = min(V, begin + SHARE);
  const T* from = logits + static_cast<long>(row) * V;
  __shared__ float tops[WARPS], sums[WARPS];
  __shared__ int places[WARPS];
  float top = -3e38f, sum = 0;
  int place = begin;
  for (int i = begin + t; i < end; i += N) {
    const float x = static_cast<float>(from[i]);
    if (x > top) sum = sum * expf(top - x) + 1, top = x, place = i;
    else sum += expf(x - top);
  }
  const auto join = [&](float other_top, float other_sum, int other_place) {
    const bool other = other_top > top || (other_top == top && other_place < place);
    const float new_top = fmaxf(top, other_top);
    sum = sum * expf(top - new_top) + other_sum * expf(other_top - new_top);
    top = new_top;
    if (other) place = other_place;
  };
  for (int o = 16; o > 0; o /= 2) {
    const float other_top = __shfl_xor_sync(0xffffffffu, top, o);
    const float other_sum = __shfl_xor_sync(0xffffffffu, sum, o);
    const int other_place = __shfl_xor_sync(0xffffffffu, place, o);
    join(other_top, other_sum, other_place);
  }
  if (t % 32 == 0) tops[t / 32] = top, sums[t / 32] = sum, places[t / 32] = place;
  __syncthreads();
  if (t == 0) {
    for (int w = 1; w < WARPS; w++) join(tops[w], sums[w], places[w]);
    const long at = static_cast<long>(row) * n_parts + blockIdx.x;
    found[2 * at] = top;
    found[2 * at + 1] = sum;
    found_places[at] = place;
  }
"""

JOIN = r"""
  const int n_parts = places_shape[1], row = blockIdx.x, t = threadIdx.x;
  float top = -3e38f, sum = 0;
  int place = 0x7fffffff;
  for (int i = t; i < n_parts; i += 32) {
    const long at = static_cast<long>(row) * n_parts + i;
    if (parts[2 * at] > top) top = parts[2 * at], place = places[at];
  }
  for (int o = 16; o > 0; o /= 2) {
    const float other_top = __shfl_xor_sync(0xffffffffu, top, o);
    const int other_place = __shfl_xor_sync(0xffffffffu, place, o);
    if (other_top > top || (other_top == top && other_place < place)) place = other_place;
    top = fmaxf(top, other_top);
  }
  for (int i = t; i < n_parts; i += 32) {
    const long at = static_cast<long>(row) * n_parts + i;
    sum += parts[2 * at + 1] * expf(parts[2 * at] - top);
  }
  for (int o = 16; o > 0; o /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, o);
  if (t == 0) ids[row] = place, logprobs[row] = -logf(sum);
"""


def likeliest(logits: mx.array) -> tuple[mx.array, mx.array]:
    """The likeliest ids, int32, and their log-probabilities, float32, ``(..., V) -> (...)``."""
    if not on_cuda():
        logits = logits.astype(mx.float32)
        ids = mx.argmax(logits, axis=-1)
        return ids.astype(mx.int32), mx.max(logits, axis=-1) - mx.logsumexp(logits, axis=-1)
    shape, width = logits.shape[:-1], logits.shape[-1]
    rows = logits.reshape(-1, width)
    n, n_parts = len(rows), -(-width // SHARE)
    parts, places = run(
        "search_likeliest",
        ("", SEARCH),
        {"logits": rows},
        {"found": ((n, n_parts, 2), mx.float32), "found_places": ((n, n_parts), mx.int32)},
        {"N": THREADS, "SHARE": SHARE},
        (n_parts, n, 1),
        THREADS,
        logits.dtype,
    )
    ids, logprobs = run(
        "join_likeliest",
        ("", JOIN),
        {"parts": parts, "places": places},
        {"ids": ((n,), mx.int32), "logprobs": ((n,), mx.float32)},
        {},
        (n, 1, 1),
        32,
        mx.float32,
    )
    return ids.reshape(shape), logprobs.reshape(shape)
