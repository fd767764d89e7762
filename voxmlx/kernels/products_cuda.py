"""CUDA text of the product of a few rows with a 4-bit matrix; MLX adds signature and constants.

Letters: GS weights of a group, FT tiles of 16 outputs of a block, MT tiles of 8 rows, N threads of
a block, GATED whether the first half of the outputs are gates of the second.

A warp holds 16 outputs times 64 weights in registers: lane ``4 g + t`` has weights ``16 t .. 16 t +
15`` of outputs ``g`` and ``g + 8``. The matrix unit adds up over the weights, so any order of them
serves as long as both factors have it.
"""

from __future__ import annotations

HEADER = r"""
template <typename A, typename B>
constexpr bool same = false;
template <typename A>
constexpr bool same<A, A> = true;

template <typename T>
__device__ inline unsigned two(float low, float high) {
  alignas(4) const T pair[2] = {static_cast<T>(low), static_cast<T>(high)};
  return *reinterpret_cast<const unsigned*>(pair);
}

// c += a b: a is 16 x 16 by rows, b 16 x 8 by columns.
template <typename T>
__device__ inline void multiply_add(
    float* c, unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
  if constexpr (same<T, __nv_bfloat16>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  }
}

// Nibbles 0 and 4 of a word times scale plus bias, rounded once: a number of the form 128 + n
// (1024 + n in half precision) has n as its last bits.
template <typename T>
__device__ inline unsigned weights(unsigned word, unsigned scale, unsigned bias) {
  if constexpr (same<T, __nv_bfloat16>) {
    const unsigned shifted = (word & 0x000F000Fu) | 0x43004300u;
    const __nv_bfloat162 n = __hsub2(
        *reinterpret_cast<const __nv_bfloat162*>(&shifted),
        __nv_bfloat162(__nv_bfloat16(128.0f), __nv_bfloat16(128.0f)));
    const __nv_bfloat162 w = __hfma2(
        n,
        *reinterpret_cast<const __nv_bfloat162*>(&scale),
        *reinterpret_cast<const __nv_bfloat162*>(&bias));
    return *reinterpret_cast<const unsigned*>(&w);
  } else {
    const unsigned shifted = (word & 0x000F000Fu) | 0x64006400u;
    const __half2 n = __hsub2(
        *reinterpret_cast<const __half2*>(&shifted), __half2(__half(1024.0f), __half(1024.0f)));
    const __half2 w = __hfma2(
        n, *reinterpret_cast<const __half2*>(&scale), *reinterpret_cast<const __half2*>(&bias));
    return *reinterpret_cast<const unsigned*>(&w);
  }
}

template <typename T>
__device__ inline float rounded(float x) {
  return static_cast<float>(static_cast<T>(x));
}

template <typename T>
__device__ inline float half_of(unsigned pair, int i) {
  return static_cast<float>(reinterpret_cast<const T*>(&pair)[i]);
}

// Eight numbers times a factor times a weight each.
template <typename T>
__device__ inline uint4 scaled(uint4 x, uint4 weight, float factor) {
  const auto both = [&](unsigned x, unsigned w) {
    return two<T>(
        half_of<T>(x, 0) * factor * half_of<T>(w, 0), half_of<T>(x, 1) * factor * half_of<T>(w, 1));
  };
  return {both(x.x, weight.x), both(x.y, weight.y), both(x.z, weight.z), both(x.w, weight.w)};
}

template <int n>
struct alignas(2 * n) Shorts {
  unsigned short x[n];
};

__device__ inline unsigned twice(unsigned short x) {
  return x | static_cast<unsigned>(x) << 16;
}
"""

MULTIPLY_PACKED = r"""
  constexpr int CHUNK = 256, WARPS = N / 32, GROUPS = CHUNK / GS, F = 16 * FT, M = 8 * MT;
  constexpr int WRITTEN = GATED ? F / 2 : F;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  const int n_rows = x_shape[0], K = x_shape[1], n_out = packed_shape[0] / (GATED ? 2 : 1);
  const int first_row = blockIdx.y * M, first = blockIdx.x * WRITTEN;
  __shared__ float parts[WARPS][M][F];

  float acc[FT][MT][4];
#pragma unroll
  for (int f = 0; f < FT; f++) {
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
      for (int i = 0; i < 4; i++) acc[f][m][i] = 0;
    }
  }
  for (int start = warp * CHUNK; start < K; start += WARPS * CHUNK) {
    uint2 words[FT][2][4];
    Shorts<GROUPS> scale[FT][2], bias[FT][2];
#pragma unroll
    for (int f = 0; f < FT; f++) {
#pragma unroll
      for (int h = 0; h < 2; h++) {
        const int tile = GATED ? f / 2 : f;  // gates and what they gate lie in turn
        const int place = min(first + 16 * tile + 8 * h + g, n_out - 1);
        const long out = GATED ? place + f % 2 * n_out : place;
        const uint2* from = reinterpret_cast<const uint2*>(packed + (out * K + start) / 8) + t;
#pragma unroll
        for (int j = 0; j < 4; j++) words[f][h][j] = from[4 * j];
        const long group = (out * K + start) / GS;
        scale[f][h] = *reinterpret_cast<const Shorts<GROUPS>*>(scales + group);
        bias[f][h] = *reinterpret_cast<const Shorts<GROUPS>*>(biases + group);
      }
    }
SQUARES
#pragma unroll
    for (int j = 0; j < 4; j++) {
      unsigned w[FT][2][8];
#pragma unroll
      for (int f = 0; f < FT; f++) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
          unsigned short s, b;
          if constexpr (GS >= 64) {
            s = scale[f][h].x[64 * j / GS];
            b = bias[f][h].x[64 * j / GS];
          } else {
            s = t < 2 ? scale[f][h].x[(2 * j) % GROUPS] : scale[f][h].x[(2 * j + 1) % GROUPS];
            b = t < 2 ? bias[f][h].x[(2 * j) % GROUPS] : bias[f][h].x[(2 * j + 1) % GROUPS];
          }
#pragma unroll
          for (int i = 0; i < 4; i++) {
            w[f][h][i] = weights<T>(words[f][h][j].x >> (4 * i), twice(s), twice(b));
            w[f][h][4 + i] = weights<T>(words[f][h][j].y >> (4 * i), twice(s), twice(b));
          }
        }
      }
#pragma unroll
      for (int m = 0; m < MT; m++) {
        const long row = min(first_row + 8 * m + g, n_rows - 1);
        const uint4* from = reinterpret_cast<const uint4*>(x + row * K + start + 64 * j + 16 * t);
        unsigned v[8];
#pragma unroll
        for (int i = 0; i < 2; i++) {
          const uint4 y = TAKEN;
          v[4 * i] = __byte_perm(y.x, y.z, 0x5410);
          v[4 * i + 1] = __byte_perm(y.x, y.z, 0x7632);
          v[4 * i + 2] = __byte_perm(y.y, y.w, 0x5410);
          v[4 * i + 3] = __byte_perm(y.y, y.w, 0x7632);
        }
#pragma unroll
        for (int f = 0; f < FT; f++) {
#pragma unroll
          for (int s = 0; s < 8; s += 2) {
            multiply_add<T>(
                acc[f][m], w[f][0][s], w[f][1][s], w[f][0][s + 1], w[f][1][s + 1], v[s], v[s + 1]);
          }
        }
      }
    }
  }
#pragma unroll
  for (int f = 0; f < FT; f++) {
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        parts[warp][8 * m + 2 * t + i % 2][16 * f + i / 2 * 8 + g] = acc[f][m][i];
      }
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < WRITTEN * M; i += N) {
    const int row = first_row + i / WRITTEN, out = i % WRITTEN;
    if (row < n_rows && first + out < n_out) {
      const int at = GATED ? out / 16 * 32 + out % 16 : out;
      float sum = 0, other = 0;
#pragma unroll
      for (int part = 0; part < WARPS; part++) {
        sum += parts[part][i / WRITTEN][at];
        if (GATED) other += parts[part][i / WRITTEN][at + 16];
      }
      if (GATED) {
        const float gate = rounded<T>(sum);
        sum = gate / (1.0f + expf(-gate)) * rounded<T>(other);
      }
      const long at_y = static_cast<long>(row) * n_out + first + out;
      y[at_y] = static_cast<T>(ADDED);
    }
  }
"""

SQUARES = r"""
    // The weights of the first chunk are on their way; meanwhile the mean squares of all rows.
    if (start == warp * CHUNK) {
      for (int r = 0; r < min(M, n_rows - first_row); r++) {
        float square = 0;
        for (int k = start + 8 * lane; k < K; k += WARPS * CHUNK) {
          const long from = static_cast<long>(first_row + r) * K + k;
          const uint4 y = *reinterpret_cast<const uint4*>(x + from);
          const unsigned pairs[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
          for (int i = 0; i < 8; i++) {
            const float v = half_of<T>(pairs[i / 2], i % 2);
            square += v * v;
          }
        }
        for (int o = 16; o > 0; o /= 2) square += __shfl_xor_sync(0xffffffffu, square, o);
        if (lane == 0) squares[warp][r] = square;
      }
      __syncthreads();
      float all = 0;
      for (int i = 0; i < WARPS; i++) all += squares[i][min(g, n_rows - first_row - 1)];
      factor = rsqrtf(all / K + EPS);
    }"""


def product(eps: float | None, biased: bool, added: bool) -> str:
    """The product's text.

    Args:
        eps: Of the norm that its rows go through before; ``None`` without one.
        biased: Whether a bias is added to each row.
        added: Whether another array is added, last.
    """
    lines, value = "", "sum"
    if biased:
        lines += "      const float moved = static_cast<float>(shift[first + out]);\n"
        value = f"rounded<T>({value}) + moved"
    if added:
        lines += "      const float other_y = static_cast<float>(add[at_y]);\n"
        value = f"rounded<T>({value}) + other_y"
    text = MULTIPLY_PACKED.replace("ADDED", value)
    text = text.replace("      y[at_y] =", f"{lines}      y[at_y] =")
    if eps is None:
        return text.replace("SQUARES", "").replace("TAKEN", "from[i]")
    shared = "  __shared__ float squares[WARPS][M];\n  float factor = 0;\n"
    text = text.replace("  float acc[FT]", shared + "  float acc[FT]", 1)
    weights = "reinterpret_cast<const uint4*>(norm + EACH * row * K + start + 64 * j + 16 * t)[i]"
    text = text.replace("TAKEN", f"scaled<T>(from[i], {weights}, factor)")
    return text.replace("SQUARES", SQUARES.replace("EPS", f"{eps!r}f"))
