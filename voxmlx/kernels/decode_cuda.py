"""CUDA text of the kernels of :mod:`voxmlx.kernels.decode`; MLX adds signature and constants.

Letters: D width of a row, N threads of a block, F inner width, H query heads, G key-value heads,
K head width, C slots of a ring, W window, Q query heads of a block, EACH heads of a thread.
"""

from __future__ import annotations

HEADER = r"""
// Neighbouring numbers that are loaded and stored together.
template <typename T>
struct alignas(16) Pack {
  T x[16 / sizeof(T)];
};

template <typename T, int n>
__device__ inline void load_as_float(const T* from, float* to) {
  constexpr int P = 16 / sizeof(T);
#pragma unroll
  for (int i = 0; i < n / P; i++) {
    const Pack<T> pack = reinterpret_cast<const Pack<T>*>(from)[i];
#pragma unroll
    for (int j = 0; j < P; j++) to[P * i + j] = static_cast<float>(pack.x[j]);
  }
}

template <typename T, int n>
__device__ inline void store_as(const float* from, T* to) {
  constexpr int P = 16 / sizeof(T);
#pragma unroll
  for (int i = 0; i < n / P; i++) {
    Pack<T> pack;
#pragma unroll
    for (int j = 0; j < P; j++) pack.x[j] = static_cast<T>(from[P * i + j]);
    reinterpret_cast<Pack<T>*>(to)[i] = pack;
  }
}

template <typename T>
__device__ inline float rounded_to(float x) {
  return static_cast<float>(static_cast<T>(x));
}
"""

ADD_NORM = r"""
  constexpr int PER = (D + N - 1) / N;
  const int t = threadIdx.x;
  const long start = static_cast<long>(blockIdx.x) * D;
  __shared__ float parts[32];
  float v[PER];
  float square = 0;
#pragma unroll
  for (int i = 0; i < PER; i++) {
    const int j = t + i * N;
    if (j >= D) break;
    const T sum = static_cast<T>(
        static_cast<float>(x[start + j]) + static_cast<float>(y[start + j]));
    total[start + j] = sum;
    v[i] = static_cast<float>(sum);
    square += v[i] * v[i];
  }
  for (int o = 16; o > 0; o /= 2) square += __shfl_xor_sync(0xffffffffu, square, o);
  if (t % 32 == 0) parts[t / 32] = square;
  __syncthreads();
  float all = 0;
  for (int i = 0; i < N / 32; i++) all += parts[i];
  const float factor = rsqrtf(all / D + EPS);
#pragma unroll
  for (int i = 0; i < PER; i++) {
    const int j = t + i * N;
    if (j >= D) break;
    const float w = static_cast<float>(weight[EACH ? start + j : j]);
    normed[start + j] = static_cast<T>(v[i] * factor * w);
  }
"""

GATED = r"""
  const long i = static_cast<long>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < static_cast<long>(y_shape[0]) * F) {
    const long at = i / F * (2 * F) + i % F;
    const float gate = static_cast<float>(y[at]);
    const float up = static_cast<float>(y[at + F]);
    out[i] = static_cast<T>(gate / (1.0f + expf(-gate)) * up);
  }
"""

ROTATE_AND_WRITE = r"""
  // A thread has one pair of channels of some heads: their angle is the same.
  constexpr int ALL = H + 2 * G;
  const int half = threadIdx.x, step = blockIdx.y, n_steps = gridDim.y, row = blockIdx.z;
  const int C = keys_shape[2], position = offset[row] + step, slot = position % C;
  const long in = (static_cast<long>(row) * n_steps + step) * ALL * K + 2 * half;
  const int first = blockIdx.x * EACH;
  float a[EACH], b[EACH];
#pragma unroll
  for (int i = 0; i < EACH; i++) {
    const T* from = qkv + in + min(first + i, ALL - 1) * K;
    a[i] = static_cast<float>(from[0]), b[i] = static_cast<float>(from[1]);
  }
  float sine, cosine;
  sincosf(position * freqs[half], &sine, &cosine);
#pragma unroll
  for (int i = 0; i < EACH; i++) {
    const int head = first + i;
    if (head >= ALL) break;
    const bool turned = head < H + G;
    const T one = static_cast<T>(turned ? a[i] * cosine - b[i] * sine : a[i]);
    const T two = static_cast<T>(turned ? a[i] * sine + b[i] * cosine : b[i]);
    T* to;
    if (head < H) {
      to = queries + ((static_cast<long>(row) * H + head) * n_steps + step) * K;
    } else {
      to = const_cast<T*>(turned ? keys : values);
      to += ((static_cast<long>(row) * G + (head - H) % G) * C + slot) * K;
    }
    to[2 * half] = one;
    to[2 * half + 1] = two;
  }
"""

MERGE_LANES = r"""#pragma unroll
  for (int h = 0; h < Q; h++) {
    float top = m[h];
    for (int o = 16; o > 4; o /= 2) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, o));
    const float kept = exp2f(m[h] - top);
    l[h] *= kept;
    for (int o = 16; o > 4; o /= 2) l[h] += __shfl_xor_sync(0xffffffffu, l[h], o);
#pragma unroll
    for (int i = 0; i < D; i++) {
      acc[h][i] *= kept;
      for (int o = 16; o > 4; o /= 2) acc[h][i] += __shfl_xor_sync(0xffffffffu, acc[h][i], o);
    }
    if (t % 32 < 8) {
#pragma unroll
      for (int i = 0; i < D; i++) part_acc[h][warp][lane * D + i] = acc[h][i];
      part_m[h][warp] = top;
      part_l[h][warp] = l[h];
    }
  }
  __syncthreads();
  for (int i = t; i < Q * K; i += N) {
    const int h = i / K, channel = i % K;
    float top = part_m[h][0];
    for (int w = 1; w < WARPS; w++) top = fmaxf(top, part_m[h][w]);
"""
"""The end of an attention kernel: a warp's four groups of lanes add up what each kept of its
positions (maximum, weight, sum of values), then a thread takes a head's channel over all warps."""

ATTEND_ONE = (
    r"""
  // Eight lanes hold a key; every such group walks over keys of its own, and all are joined last.
  constexpr int D = K / 8, WARPS = N / 32, GROUPS = N / 8, PER_KV = H / G;
  const int t = threadIdx.x, lane = t % 8, warp = t / 32;
  const int head = blockIdx.x * Q, kv = head / PER_KV, row = blockIdx.y;
  const int C = keys_shape[2];
  const int position = offset[row];
  const T* q_in = qkv + (static_cast<long>(row) * (H + 2 * G) + head) * K + lane * D;
  const T* k_in = qkv + (static_cast<long>(row) * (H + 2 * G) + H + kv) * K + lane * D;
  const T* v_in = k_in + G * K;
  const long ring = (static_cast<long>(row) * G + kv) * C * K + lane * D;
  __shared__ float part_m[Q][WARPS], part_l[Q][WARPS], part_acc[Q][WARPS][K];

  float q[Q][D], acc[Q][D], m[Q], l[Q], k[D], v[D], sine[D / 2], cosine[D / 2];
#pragma unroll
  for (int i = 0; i < D / 2; i++) {
    sincosf(position * freqs[lane * (D / 2) + i], &sine[i], &cosine[i]);
  }
  auto rotate = [&](float* x) {
#pragma unroll
    for (int i = 0; i < D / 2; i++) {
      const float a = x[2 * i], b = x[2 * i + 1];
      x[2 * i] = rounded_to<T>(a * cosine[i] - b * sine[i]);
      x[2 * i + 1] = rounded_to<T>(a * sine[i] + b * cosine[i]);
    }
  };
  load_as_float<T, D>(k_in, k);
  load_as_float<T, D>(v_in, v);
  rotate(k);
  if (t < 8 && head % PER_KV == 0) {
    const long at = ring + static_cast<long>(position % C) * K;
    store_as<T, D>(k, const_cast<T*>(keys) + at);
    store_as<T, D>(v, const_cast<T*>(values) + at);
  }
  // Scores count in powers of two. The new key starts the first group's sums.
  const float scale = 1.44269504f * rsqrtf(static_cast<float>(K));
  auto score = [&](const float* query) {
    float s = 0;
#pragma unroll
    for (int i = 0; i < D; i++) s += query[i] * k[i];
    for (int o = 4; o > 0; o /= 2) s += __shfl_xor_sync(0xffffffffu, s, o);
    return s;
  };
#pragma unroll
  for (int h = 0; h < Q; h++) {
    load_as_float<T, D>(q_in + h * K, q[h]);
    rotate(q[h]);
#pragma unroll
    for (int i = 0; i < D; i++) q[h][i] *= scale;
    const float s = score(q[h]);
    const bool first = t < 8;
    m[h] = first ? s : -1e30f;
    l[h] = first ? 1.0f : 0.0f;
#pragma unroll
    for (int i = 0; i < D; i++) acc[h][i] = first ? v[i] : 0.0f;
  }
  const int oldest = position >= W ? position - W + 1 : 0;
  for (int start = oldest + warp * 4; start < position; start += GROUPS) {
    const int j = start + t % 32 / 8;
    const bool valid = j < position;
    const long at = ring + static_cast<long>((valid ? j : start) % C) * K;
    load_as_float<T, D>(keys + at, k);
    load_as_float<T, D>(values + at, v);
#pragma unroll
    for (int h = 0; h < Q; h++) {
      const float s = score(q[h]);
      const float top = valid ? fmaxf(m[h], s) : m[h];
      const float kept = exp2f(m[h] - top), added = valid ? exp2f(s - top) : 0.0f;
      m[h] = top;
      l[h] = l[h] * kept + added;
#pragma unroll
      for (int i = 0; i < D; i++) acc[h][i] = acc[h][i] * kept + added * v[i];
    }
  }
"""
    + MERGE_LANES
    + r"""    float sum = 0, weight = 0;
    for (int w = 0; w < WARPS; w++) {
      const float f = exp2f(part_m[h][w] - top);
      sum += f * part_acc[h][w][channel];
      weight += f * part_l[h][w];
    }
    out[(static_cast<long>(row) * H + head + h) * K + channel] = static_cast<T>(sum / weight);
  }
"""
)

SOURCES = {
    "add_norm": ADD_NORM,
    "gated": GATED,
    "rotate_and_write": ROTATE_AND_WRITE,
    "attend_one": ATTEND_ONE,
}
