// The transforms of Winograd's minimal filtering F(2x2,3x3) (Lavin & Gray, CVPR 2016, section 4.1): a tile of 2x2
// results comes from 4x4 pixels that begin one row above and one column left of it, by 16 products instead of 36.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

#include "common.h"
#include "winograd_gemm.h"

namespace m2f::winograd {

// N maps of H W pixels, C channels given, K channels made; P = 16 places of a transformed tile, 4 x 4
constexpr int SIDE = 4, PLACES = SIDE * SIDE, TAPS = 9;

// Memory that begins with a cache line, not initialised. Each thread keeps it, for each use, for its next call: to be
// given some by the system takes longer than to fill it. Only much is given back.
enum Use { SHARED, OWN };

template <Use USE>
class Scratch {
 public:
  explicit Scratch(int64_t size) {
    if (size > room_) {
      room_ = 0;
      kept_.reset();
      kept_.reset(static_cast<float*>(::operator new[](size * sizeof(float), ALIGNMENT)));
      room_ = size;
    }
    data = kept_.get();
  }
  ~Scratch() {
    if (room_ <= MOST) return;
    room_ = 0;
    kept_.reset();
  }
  Scratch(const Scratch&) = delete;

  float* data;  // the same for all threads that see this object

 private:
  static constexpr int64_t MOST = 2 << 20;  // numbers, 8 MB
  static constexpr std::align_val_t ALIGNMENT{64};
  struct Free {
    void operator()(float* p) const { ::operator delete[](p, ALIGNMENT); }
  };
  static inline thread_local std::unique_ptr<float[], Free> kept_;
  static inline thread_local int64_t room_ = 0;
};

struct Tiles {
  int64_t N, H, W;

  int64_t across() const { return (W + 1) / 2; }
  int64_t per_map() const { return (H + 1) / 2 * across(); }
  int64_t count() const { return N * per_map(); }
};

// Addresses of the channels of the SIZE x SIZE pixels of a tile; `outside` of those that no map has. A tile of 4x4
// pixels has a margin of one around its 2x2.
template <int SIZE, typename T>
inline void find_pixels(const Tiles& tiles, int64_t tile, T* map, int64_t channels, T* outside, T** pixels) {
  const int64_t n = tile / tiles.per_map(), place = tile % tiles.per_map(), margin = (SIZE - 2) / 2;
  const int64_t top = place / tiles.across() * 2 - margin, left = place % tiles.across() * 2 - margin;
  for (int64_t i = 0; i < SIZE; ++i) {
    for (int64_t j = 0; j < SIZE; ++j) {
      const int64_t y = top + i, x = left + j;
      const bool inside = n < tiles.N && y >= 0 && y < tiles.H && x >= 0 && x < tiles.W;
      pixels[i * SIZE + j] = inside ? map + ((n * tiles.H + y) * tiles.W + x) * channels : outside;
    }
  }
}

// One axis of each transform: numbers `step` apart. What a 4x4 tile of pixels becomes, B^T d:
inline void pixels_axis(Vec* v, int step) {
  const Vec a = v[0], b = v[step], c = v[2 * step], d = v[3 * step];
  v[0] = a - c;
  v[step] = b + c;
  v[2 * step] = c - b;
  v[3 * step] = b - d;
}

// 3 taps -> 4, G g; the four replace the three and one behind
inline void taps_axis(Vec* v, int step) {
  const Vec half = (v[0] + v[2 * step]) * 0.5f, middle = v[step] * 0.5f;
  v[3 * step] = v[2 * step];
  v[step] = half + middle;
  v[2 * step] = half - middle;
}

// 4 sums of products -> 2 results, A^T m
inline void results_axis(Vec* v, int step) {
  const Vec b = v[step], c = v[2 * step];
  v[0] = v[0] + b + c;
  v[step] = b - c - v[3 * step];
}

// The transposed of results_axis, 2 -> 4, and of taps_axis, 4 -> 3, give the gradient of the taps.
inline void results_axis_transposed(Vec* v, int step) {
  const Vec a = v[0], b = v[step];
  v[step] = a + b;
  v[2 * step] = a - b;
  v[3 * step] = -b;
}

inline void taps_axis_transposed(Vec* v, int step) {
  const Vec half = (v[step] + v[2 * step]) * 0.5f, middle = (v[step] - v[2 * step]) * 0.5f;
  v[0] += half;
  v[step] = middle;
  v[2 * step] = half + v[3 * step];
}

// A 4x4 matrix of vectors through both axes: its first COLUMNS columns, and then its first LINES rows.
template <void (*AXIS)(Vec*, int), int COLUMNS, int LINES>
inline void transform(Vec* v) {
#pragma GCC unroll 4
  for (int j = 0; j < COLUMNS; ++j) AXIS(v + j, 4);
#pragma GCC unroll 4
  for (int i = 0; i < LINES; ++i) AXIS(v + 4 * i, 1);
}

inline void transform_pixels(Vec* v) { transform<pixels_axis, 4, 4>(v); }
inline void transform_taps(Vec* v) { transform<taps_axis, 3, 4>(v); }
inline void transform_results(Vec* v) { transform<results_axis, 4, 2>(v); }
inline void transform_taps_back(Vec* v) { transform<taps_axis_transposed, 4, 3>(v); }

}  // namespace m2f::winograd
