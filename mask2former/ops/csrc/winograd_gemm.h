// Small matrix products with the sums in registers, in the compilers' own notation for vectors.
#pragma once

#include <cstdint>
#include <cstring>

// Without AVX such vectors are passed in another way. That concerns objects of several compilers, which nobody mixes.
#pragma GCC diagnostic ignored "-Wpsabi"

namespace m2f::winograd {

// A product adds up ROWS (GRAD_ROWS in the gradient of weights) rows of two vectors at a time. With what is multiplied
// they fill the registers: 28 + 3 of 32 of 64 bytes, 12 + 3 of 16 of 32 bytes.
#if defined(__AVX512F__)
constexpr int LANES = 16, ROWS = 14, GRAD_ROWS = 8;
#elif defined(__AVX2__)
constexpr int LANES = 8, ROWS = 6, GRAD_ROWS = 4;
#else
constexpr int LANES = 4, ROWS = 6, GRAD_ROWS = 4;
#endif
constexpr int WIDTH = 2 * LANES;

typedef float Vec __attribute__((vector_size(LANES * sizeof(float))));

inline Vec load(const float* from) {
  Vec v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

inline void store(float* to, Vec v) { std::memcpy(to, &v, sizeof v); }

// to [HEIGHT,WIDTH] becomes, or with add gets added, left [HEIGHT,depth] times right [depth,WIDTH]. depth is a multiple
// of LANES, and left comes in blocks of LANES columns, HEIGHT * LANES numbers each, in which number k of row r is at
// r * ROW + k * STEP.
template <int HEIGHT, int ROW, int STEP>
inline void multiply(const float* left, const float* right, int64_t depth, float* to, bool add) {
  Vec sums[HEIGHT][2] = {};
  for (int64_t block = 0; block < depth; block += LANES, left += HEIGHT * LANES) {
    for (int k = 0; k < LANES; ++k, right += WIDTH) {
      const Vec first = load(right), second = load(right + LANES);
#pragma GCC unroll 16
      for (int r = 0; r < HEIGHT; ++r) {
        const float number = left[r * ROW + k * STEP];
        sums[r][0] += number * first;
        sums[r][1] += number * second;
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < HEIGHT; ++r, to += WIDTH) {
    store(to, add ? load(to) + sums[r][0] : sums[r][0]);
    store(to + LANES, add ? load(to + LANES) + sums[r][1] : sums[r][1]);
  }
}

}  // namespace m2f::winograd
