"""CUDA text of the kernels of :mod:`voxmlx.kernels.packed`; MLX adds signature and constants.

Letters: H query heads, G key-value heads, K head width, C slots of a ring, W window, S splits of
the positions, Q query heads of a key-value head, N threads of a block, BITS of a code, GROUP
numbers that share a scale (0: codes of a table, and a norm).
"""

from __future__ import annotations

from voxmlx.kernels.decode_cuda import MERGE_LANES

HEADER = r"""
// A lane's codes of one vector, as they are stored: the first code in the lowest bits.
template <int bytes>
struct Codes {
  unsigned words[(bytes + 3) / 4];

  __device__ inline void load(const unsigned char* from) {
    if constexpr (bytes % 16 == 0) {
#pragma unroll
      for (int i = 0; i < bytes / 16; i++) {
        const uint4 four = reinterpret_cast<const uint4*>(from)[i];
        words[4 * i] = four.x;
        words[4 * i + 1] = four.y;
        words[4 * i + 2] = four.z;
        words[4 * i + 3] = four.w;
      }
    } else if constexpr (bytes % 4 == 0) {
#pragma unroll
      for (int i = 0; i < bytes / 4; i++) words[i] = reinterpret_cast<const unsigned*>(from)[i];
    } else {
#pragma unroll
      for (int i = 0; i < (bytes + 3) / 4; i++) words[i] = 0;
#pragma unroll
      for (int i = 0; i < bytes; i++) {
        words[i / 4] |= static_cast<unsigned>(from[i]) << (8 * (i % 4));
      }
    }
  }

  template <int bits>
  __device__ inline int get(int i) const {
    const int at = i * bits, word = at / 32, shift = at % 32;
    unsigned code = words[word] >> shift;
    if (shift + bits > 32) code |= words[word + 1] << (32 - shift);
    return code & ((1u << bits) - 1);
  }
};
"""

ATTEND_CODES = (
    r"""
  // Eight lanes hold a key; every such group walks over keys of its own.
  constexpr int D = K / 8, WARPS = N / 32, BYTES = D * BITS / 8, ROW = K * BITS / 8;
  constexpr int SHARES = GROUP ? K / GROUP : 1;
  const int t = threadIdx.x, lane = t % 8, warp = t / 32;
  const int split = blockIdx.x, kv = blockIdx.y, row = blockIdx.z;
  const int C = k_codes_shape[2];
  const int position = offset[row];
  const int oldest = position >= W ? position - W + 1 : 0;
  const int each = (position - oldest + S) / S;
  const int begin = oldest + split * each;
  const int end = begin + each <= position ? begin + each : position + 1;
  const long ring = (static_cast<long>(row) * G + kv) * C;
  const unsigned char* keys = reinterpret_cast<const unsigned char*>(k_codes) + ring * ROW;
  const unsigned char* values = reinterpret_cast<const unsigned char*>(v_codes) + ring * ROW;
  const int share = GROUP ? lane * D / (GROUP ? GROUP : 1) : 0;
  __shared__ float entries[GROUP ? 1 : 1 << BITS];
  __shared__ float part_m[Q][WARPS], part_l[Q][WARPS], part_acc[Q][WARPS][K];
  if constexpr (GROUP == 0) {
    for (int i = t; i < 1 << BITS; i += N) entries[i] = table[i];
    __syncthreads();
  }

  // Scores count in powers of two.
  float q[Q][D], acc[Q][D], sum[Q], m[Q], l[Q];
#pragma unroll
  for (int h = 0; h < Q; h++) {
    const long at = (static_cast<long>(row) * H + kv * Q + h) * K + lane * D;
    m[h] = -1e30f;
    l[h] = sum[h] = 0;
#pragma unroll
    for (int i = 0; i < D; i++) {
      q[h][i] = static_cast<float>(queries[at + i]) * 1.44269504f;
      sum[h] += q[h][i];
      acc[h][i] = 0;
    }
  }
  for (int start = begin + warp * 4; start < end; start += N / 8) {
    const int j = start + t % 32 / 8;
    const bool valid = j < end;
    const long slot = (valid ? j : start) % C;
    const long at = (ring + slot) * SHARES + share;
    Codes<BYTES> k, v;
    k.load(keys + slot * ROW + lane * BYTES);
    v.load(values + slot * ROW + lane * BYTES);
    const float k_scale = static_cast<float>(k_scales[at]);
    const float v_scale = static_cast<float>(v_scales[at]);
    float k_bias = 0, v_bias = 0, s[Q];
    if constexpr (GROUP != 0) {
      k_bias = static_cast<float>(k_biases[at]);
      v_bias = static_cast<float>(v_biases[at]);
    }
#pragma unroll
    for (int h = 0; h < Q; h++) s[h] = 0;
#pragma unroll
    for (int i = 0; i < D; i++) {
      const int code = k.template get<BITS>(i);
      const float x = GROUP ? static_cast<float>(code) : entries[code];
#pragma unroll
      for (int h = 0; h < Q; h++) s[h] += q[h][i] * x;
    }
    float kept[Q], added[Q];
#pragma unroll
    for (int h = 0; h < Q; h++) {
      s[h] = s[h] * k_scale + sum[h] * k_bias;
      for (int o = 4; o > 0; o /= 2) s[h] += __shfl_xor_sync(0xffffffffu, s[h], o);
      const float top = valid ? fmaxf(m[h], s[h]) : m[h];
      kept[h] = exp2f(m[h] - top);
      added[h] = valid ? exp2f(s[h] - top) : 0.0f;
      m[h] = top;
      l[h] = l[h] * kept[h] + added[h];
    }
#pragma unroll
    for (int i = 0; i < D; i++) {
      const int code = v.template get<BITS>(i);
      const float x = (GROUP ? static_cast<float>(code) : entries[code]) * v_scale + v_bias;
#pragma unroll
      for (int h = 0; h < Q; h++) acc[h][i] = acc[h][i] * kept[h] + added[h] * x;
    }
  }
"""
    + MERGE_LANES
    + r"""    float mixed = 0, weight = 0;
    for (int w = 0; w < WARPS; w++) {
      const float f = exp2f(part_m[h][w] - top);
      mixed += f * part_acc[h][w][channel];
      weight += f * part_l[h][w];
    }
    const long at = (static_cast<long>(row) * H + kv * Q + h) * S + split;
    sums[at * K + channel] = mixed;
    if (channel == 0) {
      tops[at] = top;
      weights[at] = weight;
    }
  }
"""
)

JOIN_SPLITS = r"""
  const int head = blockIdx.x, channel = threadIdx.x;
  const float* top = tops + static_cast<long>(head) * S;
  float highest = top[0], mixed = 0, weight = 0;
  for (int s = 1; s < S; s++) highest = fmaxf(highest, top[s]);
  for (int s = 0; s < S; s++) {
    const float f = exp2f(top[s] - highest);
    mixed += f * sums[(static_cast<long>(head) * S + s) * K + channel];
    weight += f * weights[static_cast<long>(head) * S + s];
  }
  out[static_cast<long>(head) * K + channel] = static_cast<T>(mixed / weight);
"""

ENCODE = r"""
  // Eight lanes hold a vector.
  constexpr int D = K / 8, BYTES = D * BITS / 8;
  const int t = threadIdx.x, lane = t % 8;
  const int row = blockIdx.x * (N / 8) + t / 8, n_rows = x_shape[0];
  const long from = static_cast<long>(row < n_rows ? row : n_rows - 1) * K + lane * D;
  __shared__ float middles[1 << BITS];
  for (int i = t; i < (1 << BITS) - 1; i += N) middles[i] = bounds[i];
  __syncthreads();
  float v[D], square = 0;
#pragma unroll
  for (int i = 0; i < D; i++) {
    v[i] = static_cast<float>(x[from + i]);
    square += v[i] * v[i];
  }
  for (int o = 4; o > 0; o /= 2) square += __shfl_xor_sync(0xffffffffu, square, o);
  const float norm = sqrtf(square), divisor = fmaxf(norm, 1e-8f);
  unsigned char bytes[BYTES];
#pragma unroll
  for (int i = 0; i < BYTES; i++) bytes[i] = 0;
#pragma unroll
  for (int i = 0; i < D; i++) {
    const float unit = v[i] / divisor;
    int code = 0;  // the number of middles below
#pragma unroll
    for (int step = 1 << (BITS - 1); step > 0; step /= 2) {
      if (unit > middles[code + step - 1]) code += step;
    }
    const int at = i * BITS / 8, shift = i * BITS % 8;
    bytes[at] |= static_cast<unsigned char>(code << shift);
    if (shift + BITS > 8) bytes[at + 1] |= static_cast<unsigned char>(code >> (8 - shift));
  }
  if (row < n_rows) {
    unsigned char* to = codes + (static_cast<long>(row) * 8 + lane) * BYTES;
#pragma unroll
    for (int i = 0; i < BYTES; i++) to[i] = bytes[i];
    if (lane == 0) norms[row] = static_cast<__half>(norm);
  }
"""
