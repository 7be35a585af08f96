// Mask logits resized to the wanted size, some queries at a time and never as a whole.
#pragma once

#include <algorithm>
#include <vector>

#include "logistic.h"
#include "simd.h"

namespace m2f::mask_results {

using simd::broadcast;
using simd::Index;
using simd::LANES;
using simd::load;
using simd::store;
using simd::Vec;

// out[i] = sum over t of weight[i,t] * given[index[i,t]]
template <typename T>
struct Taps {
  const int64_t* index;  // [size,count]
  const T* weight;
  int64_t count;

  // Whether all lie in what is given.
  bool inside(int64_t size, int64_t given) const {
    return std::all_of(index, index + size * count, [=](int64_t i) { return 0 <= i && i < given; });
  }
};

// Q queries, h w size of the maps, H W wanted size
struct Sizes {
  int64_t Q, h, w, H, W;
};

template <typename T>
struct Maps {
  const T* logits;  // [Q,h,w]
  Taps<T> rows, columns;
  Sizes n;
  int64_t groups() const { return (n.Q + LANES<T> - 1) / LANES<T>; }
  int64_t members(int64_t group) const { return std::min<int64_t>(LANES<T>, n.Q - group * LANES<T>); }

  bool valid() const {
    if (std::min({n.Q, n.h, n.w, n.H, n.W, rows.count, columns.count}) < 1) return false;
    return rows.inside(n.H, n.h) && columns.inside(n.W, n.w);
  }
};

// Queries in groups, one to a lane: [groups,h,w,LANES]. Lanes without a query are 0.
template <typename T>
std::vector<T> pack(const Maps<T>& maps, int threads) {
  constexpr int64_t L = LANES<T>;
  const Sizes& n = maps.n;
  std::vector<T> packed(maps.groups() * n.h * n.w * L);
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (int64_t row = 0; row < maps.groups() * n.h; ++row) {
    const int64_t group = row / n.h, members = maps.members(group);
    const T* from = maps.logits + (group * L * n.h + row % n.h) * n.w;
    T* to = packed.data() + row * n.w * L;
    int64_t x = 0;
    for (; members == L && x + L <= n.w; x += L) simd::transpose(from + x, n.h * n.w, to + x * L, L);
    for (; x < n.w; ++x) {
      for (int64_t l = 0; l < members; ++l) to[x * L + l] = from[l * n.h * n.w + x];
    }
  }
  return packed;
}

// Row y of a group [h,w,LANES] at the wanted height: line [w,LANES].
template <typename T>
void make_line(const Maps<T>& maps, const T* group, int64_t y, T* line) {
  const int64_t length = maps.n.w * LANES<T>, taps = maps.rows.count;
  for (int64_t t = 0; t < taps; ++t) {
    const T weight = maps.rows.weight[y * taps + t];
    const T* row = group + maps.rows.index[y * taps + t] * length;
    if (t == 0) {
      for (int64_t i = 0; i < length; ++i) line[i] = weight * row[i];
    } else {
      for (int64_t i = 0; i < length; ++i) line[i] += weight * row[i];
    }
  }
}

// Logits at pixel x of a line.
template <typename T>
inline Vec<T> pixel(const Taps<T>& columns, const T* line, int64_t x) {
  Vec<T> value{};
  for (int64_t i = x * columns.count; i < (x + 1) * columns.count; ++i) {
    value += load(line + columns.index[i] * LANES<T>) * columns.weight[i];
  }
  return value;
}

}  // namespace m2f::mask_results
