// Multi-scale deformable attention on a GPU: where samples lie, and how lanes share them.
// B batch, S pixels of all levels, H heads, D channels per head, Q queries, L levels, P points
#pragma once

#include "common.cuh"

namespace m2f {

constexpr int MAX_LEVELS = 64;  // they travel as a parameter of the kernel, of which it has 4 KiB

struct Sizes {
  int64_t B, S, Q;
  int H, D, L, P;
};

struct Levels {
  int h[MAX_LEVELS], w[MAX_LEVELS], start[MAX_LEVELS];  // rows, columns, first pixel

  // False where shapes [L,2] do not cover S pixels, or are too large for this code.
  bool read(const int64_t* shapes, int64_t count, int64_t S) {
    if (count > MAX_LEVELS || S >= INT_MAX / 2) return false;
    int64_t pixels = 0;
    for (int64_t l = 0; l < count; ++l) {
      const int64_t rows = shapes[2 * l], columns = shapes[2 * l + 1];
      if (rows < 0 || columns < 0 || rows > INT_MAX || columns >= 1 << 27) return false;
      h[l] = int(rows);
      w[l] = int(columns);
      start[l] = int(pixels);
      if (columns > 0 && rows > (S - pixels) / columns) return false;
      pixels += rows * columns;
    }
    return pixels == S;
  }
};

// A location, as four pixels and their shares.
template <typename A>
struct Sample {
  int pixel = 0;  // top left one, counted from the image's first; may be outside
  // columns of the level * 16 + one bit per pixel inside: top left, top right, bottom left, bottom right
  int packed = 0;
  A right = 0, bottom = 0, weight = 0;  // shares of the right column and of the bottom row
  A lost = 0, poison = 0;  // of a location outside: zero, or NaN if it, or if it or the weight, is not finite

  __device__ __forceinline__ bool inside(int k) const { return packed >> k & 1; }
  __device__ __forceinline__ int64_t corner(int k) const {
    return int64_t(pixel) + (k & 1) + (k & 2 ? packed >> 4 : 0);
  }
  __device__ __forceinline__ A share(int k) const {
    return (k & 1 ? right : A(1) - right) * (k & 2 ? bottom : A(1) - bottom);
  }
};

// The location (x, y) in [0,1], where pixel centres are at (i + 0.5) / size. NaN is never made an index.
template <typename A>
__device__ __forceinline__ Sample<A> locate(A x, A y, A weight, int h, int w, int start) {
  Sample<A> sample;
  sample.weight = weight;
  if (h == 0 || w == 0) return sample;
  const A column = x * A(w) - A(0.5), row = y * A(h) - A(0.5);
  if (!(column >= A(-1) && column < A(w) && row >= A(-1) && row < A(h))) {
    sample.lost = x * A(0) + y * A(0);
    sample.poison = sample.lost + weight * A(0);
    return sample;
  }
  const A left = std::floor(column), top = std::floor(row);
  const int x0 = int(left), y0 = int(top);
  sample.right = column - left;
  sample.bottom = row - top;
  sample.pixel = start + y0 * w + x0;
  const bool left_in = x0 >= 0, right_in = x0 + 1 < w, top_in = y0 >= 0, bottom_in = y0 + 1 < h;
  sample.packed = w << 4 | (top_in && left_in) | (top_in && right_in) << 1 | (bottom_in && left_in) << 2 |
                  (bottom_in && right_in) << 3;
  return sample;
}

// Sample s of a query and head whose locations [L,P,2] and weights [L,P] these are; one that sees nothing if s >= L*P.
template <typename A>
__device__ __forceinline__ Sample<A> read_sample(const A* locations, const A* weights, int s, const Levels& levels,
                                                 const Sizes& n) {
  if (s >= n.L * n.P) return {};
  const int l = s / n.P;
  return locate(locations[2 * s], locations[2 * s + 1], weights[s], levels.h[l], levels.w[l], levels.start[l]);
}

// What lane j of each G lanes has found, for all of them. The whole warp must come here.
template <int G, typename A>
__device__ __forceinline__ Sample<A> share_sample(const Sample<A>& own, int j) {
  Sample<A> sample;
  sample.pixel = __shfl_sync(WHOLE_WARP, own.pixel, j, G);
  sample.packed = __shfl_sync(WHOLE_WARP, own.packed, j, G);
  sample.right = __shfl_sync(WHOLE_WARP, own.right, j, G);
  sample.bottom = __shfl_sync(WHOLE_WARP, own.bottom, j, G);
  sample.weight = __shfl_sync(WHOLE_WARP, own.weight, j, G);
  return sample;
}

// Add V numbers to memory that other threads add to as well.
template <int V, typename A>
__device__ __forceinline__ void add(A* to, const A (&x)[V]) {
#pragma unroll
  for (int i = 0; i < V; ++i) atomicAdd(to + i, x[i]);
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
// Hopper adds four at once.
template <int V>
__device__ __forceinline__ std::enable_if_t<V % 4 == 0> add(float* to, const float (&x)[V]) {
#pragma unroll
  for (int i = 0; i < V; i += 4)
    atomicAdd(reinterpret_cast<float4*>(to + i), make_float4(x[i], x[i + 1], x[i + 2], x[i + 3]));
}
#endif

}  // namespace m2f
