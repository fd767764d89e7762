"""CUDA text of attention over rings, for :mod:`voxmlx.kernels.decode`.

Letters: H query heads, G key-value heads, K head width, C slots of a ring, W window, N threads of a
block.

Positions of all query heads that share keys are rows of one matrix, 16 to a block. A warp takes 16
slots at a time. What a query sees follows from positions alone, so there is no mask.
"""

from __future__ import annotations

ATTEND_RING = r"""
  constexpr int WARPS = N / 32, PER_KV = H / G, Q = K / 32, V = K / 64;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  const int kv = blockIdx.x % G, tile = blockIdx.x / G, row = blockIdx.y;
  const int split = blockIdx.z, S = gridDim.z;  // the slots are divided into S parts
  const int n_steps = queries_shape[2], C = keys_shape[2], n_queries = PER_KV * n_steps;
  const int position = offset[row], newest = position + n_steps - 1;
  const int n_slots = min(C, newest + 1), newest_slot = newest % C;
  const int share = (n_slots + 16 * S - 1) / (16 * S) * 16;
  const int begin = split * share, end = min(n_slots, begin + share);
  const float scale = 1.44269504f * rsqrtf(static_cast<float>(K));
  __shared__ float part_m[WARPS][16], part_l[WARPS][16], part_acc[WARPS][16][K];

  // Rows g and g + 8 of the tile; those past the end repeat the last.
  unsigned q[2][Q][4];
  int at[2];
#pragma unroll
  for (int h = 0; h < 2; h++) {
    const int r = min(16 * tile + 8 * h + g, n_queries - 1);
    at[h] = position + r % n_steps;
    const T* from = queries + ((static_cast<long>(row) * H + kv * PER_KV) * n_steps + r) * K;
#pragma unroll
    for (int i = 0; i < Q; i++) {
      const uint4 x = *reinterpret_cast<const uint4*>(from + 32 * i + 8 * t);
      q[h][i][0] = x.x, q[h][i][1] = x.y, q[h][i][2] = x.z, q[h][i][3] = x.w;
    }
  }
  float acc[8 * V][4], m[2] = {-1e30f, -1e30f}, l[2] = {0, 0};
#pragma unroll
  for (int i = 0; i < 8 * V; i++) {
#pragma unroll
    for (int j = 0; j < 4; j++) acc[i][j] = 0;
  }
  const T* k_ring = keys + (static_cast<long>(row) * G + kv) * C * K;
  const T* v_ring = values + (static_cast<long>(row) * G + kv) * C * K;
  for (int start = begin + 16 * warp; start < end; start += 16 * WARPS) {
    uint4 k[2][Q], v[4][V];
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const long slot = min(start + 8 * i + g, n_slots - 1);
#pragma unroll
      for (int j = 0; j < Q; j++) {
        k[i][j] = *reinterpret_cast<const uint4*>(k_ring + slot * K + 32 * j + 8 * t);
      }
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const long slot = min(start + 2 * t + i % 2 + i / 2 * 8, n_slots - 1);
#pragma unroll
      for (int j = 0; j < V; j++) {
        v[i][j] = *reinterpret_cast<const uint4*>(v_ring + slot * K + 64 * j + 8 * g);
      }
    }
    float s[2][4];
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
      for (int j = 0; j < 4; j++) s[i][j] = 0;
#pragma unroll
      for (int j = 0; j < Q; j++) {
        multiply_add<T>(s[i], q[0][j][0], q[1][j][0], q[0][j][1], q[1][j][1], k[i][j].x, k[i][j].y);
        multiply_add<T>(s[i], q[0][j][2], q[1][j][2], q[0][j][3], q[1][j][3], k[i][j].z, k[i][j].w);
      }
    }
    float top[2] = {m[0], m[1]};
    bool seen[2][4];
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const int slot = start + 8 * i + 2 * t + j % 2, h = j / 2;
        const int held = newest - newest_slot + slot - (slot > newest_slot ? C : 0);
        seen[i][j] = slot < end && held <= at[h] && held > at[h] - W;
        s[i][j] *= scale;
        if (seen[i][j]) top[h] = fmaxf(top[h], s[i][j]);
      }
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
      for (int o = 1; o < 4; o *= 2) {
        top[h] = fmaxf(top[h], __shfl_xor_sync(0xffffffffu, top[h], o));
      }
      const float kept = exp2f(m[h] - top[h]);
      m[h] = top[h];
      l[h] *= kept;
#pragma unroll
      for (int i = 0; i < 8 * V; i++) acc[i][2 * h] *= kept, acc[i][2 * h + 1] *= kept;
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
      for (int j = 0; j < 4; j++) {
        s[i][j] = seen[i][j] ? exp2f(s[i][j] - m[j / 2]) : 0.0f;
        l[j / 2] += s[i][j];
      }
    }
    const unsigned p0 = two<T>(s[0][0], s[0][1]), p1 = two<T>(s[0][2], s[0][3]);
    const unsigned p2 = two<T>(s[1][0], s[1][1]), p3 = two<T>(s[1][2], s[1][3]);
#pragma unroll
    for (int j = 0; j < V; j++) {
      const unsigned x[4][4] = {
          {v[0][j].x, v[0][j].y, v[0][j].z, v[0][j].w},
          {v[1][j].x, v[1][j].y, v[1][j].z, v[1][j].w},
          {v[2][j].x, v[2][j].y, v[2][j].z, v[2][j].w},
          {v[3][j].x, v[3][j].y, v[3][j].z, v[3][j].w}};
#pragma unroll
      for (int i = 0; i < 8; i++) {
        const unsigned pick = i % 2 == 0 ? 0x5410 : 0x7632;
        const unsigned b0 = __byte_perm(x[0][i / 2], x[1][i / 2], pick);
        const unsigned b1 = __byte_perm(x[2][i / 2], x[3][i / 2], pick);
        multiply_add<T>(acc[8 * j + i], p0, p1, p2, p3, b0, b1);
      }
    }
  }
#pragma unroll
  for (int h = 0; h < 2; h++) {
    for (int o = 1; o < 4; o *= 2) l[h] += __shfl_xor_sync(0xffffffffu, l[h], o);
    part_m[warp][8 * h + g] = m[h];
    part_l[warp][8 * h + g] = l[h];
#pragma unroll
    for (int i = 0; i < 8 * V; i++) {
      const int channel = i / 8 * 64 + 16 * t + i % 8;
      part_acc[warp][8 * h + g][channel] = acc[i][2 * h];
      part_acc[warp][8 * h + g][channel + 8] = acc[i][2 * h + 1];
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < 16 * K; i += N) {
    const int r = 16 * tile + i / K, channel = i % K;
    if (r >= n_queries) break;
    float top = part_m[0][i / K];
    for (int w = 1; w < WARPS; w++) top = fmaxf(top, part_m[w][i / K]);
    float sum = 0, weight = 0;
    for (int w = 0; w < WARPS; w++) {
      const float f = exp2f(part_m[w][i / K] - top);
      sum += f * part_acc[w][i / K][channel];
      weight += f * part_l[w][i / K];
    }
FINISH
  }
"""

WRITE = r"""    const int head = kv * PER_KV + r / n_steps, step = r % n_steps;
    out[((static_cast<long>(row) * n_steps + step) * H + head) * K + channel] =
        static_cast<T>(sum / weight);"""

WRITE_PART = r"""    const long query = (static_cast<long>(row) * G + kv) * n_queries + r;
    const long part = query * S + split;
    parts[part * K + channel] = sum;
    if (channel == 0) sums[2 * part] = top, sums[2 * part + 1] = weight;"""

JOIN_PARTS = r"""
  constexpr int PER_KV = H / G;
  const int n_queries = parts_shape[2], n_steps = n_queries / PER_KV, channel = threadIdx.x;
  const int S = parts_shape[3];
  const int row = blockIdx.y, kv = blockIdx.x / n_queries, r = blockIdx.x % n_queries;
  const long first = ((static_cast<long>(row) * G + kv) * n_queries + r) * S;
  float top = -1e30f, sum = 0, weight = 0;
  for (int s = 0; s < S; s++) top = fmaxf(top, sums[2 * (first + s)]);
  for (int s = 0; s < S; s++) {
    const float f = exp2f(sums[2 * (first + s)] - top);
    sum += f * parts[(first + s) * K + channel];
    weight += f * sums[2 * (first + s) + 1];
  }
  const int head = kv * PER_KV + r / n_steps, step = r % n_steps;
  out[((static_cast<long>(row) * n_steps + step) * H + head) * K + channel] =
      static_cast<T>(sum / weight);
"""

SOURCES = {
    "attend_ring": ATTEND_RING.replace("FINISH", WRITE),
    "attend_ring_parts": ATTEND_RING.replace("FINISH", WRITE_PART),
    "join_parts": JOIN_PARTS,
}
