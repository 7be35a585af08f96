// Tiles of queries by pixels (or channels) for masked_attention.cpp: products in registers, masks, packed operands.
#pragma once

#include <algorithm>
#include <cstring>

#include "common.h"
#include "simd.h"

namespace m2f::masked_attention {

using simd::Index;
using simd::LANES;
using simd::load;
using simd::store;
using simd::Vec;

// A tile is ROWS by BLOCK numbers: ROWS * VECTORS vectors, which are added up in registers.
#ifdef __AVX512VL__
constexpr int ROWS = 4, VECTORS = 4;  // and 8 of 32 registers for what is multiplied
#else
constexpr int ROWS = 4, VECTORS = 2;
#endif
template <typename T>
constexpr int64_t BLOCK = VECTORS * LANES<T>;

// B batch, H heads, Q queries, S pixels, D channels of a head. A row of q, k, v is that of all heads, [H,D].
struct Sizes {
  int64_t B, H, Q, S, D;

  int64_t width() const { return H * D; }
  int64_t rows() const { return round_up(Q, ROWS); }
};

template <typename T>
struct Tile {
  Vec<T> v[ROWS][VECTORS] = {};

  // a [ROWS,depth], with the strides of both, times b [depth,BLOCK]
  void add_product(const T* a, int64_t row_stride, int64_t depth_stride, const T* b, int64_t b_stride, int64_t depth) {
    for (int64_t i = 0; i < depth; ++i, a += depth_stride, b += b_stride) {
      Vec<T> row[VECTORS];
      for (int n = 0; n < VECTORS; ++n) row[n] = load(b + n * LANES<T>);
      for (int m = 0; m < ROWS; ++m) {
        for (int n = 0; n < VECTORS; ++n) v[m][n] += a[m * row_stride] * row[n];
      }
    }
  }

  void read(const T* from, int64_t stride) {
    for (int m = 0; m < ROWS; ++m) {
      for (int n = 0; n < VECTORS; ++n) v[m][n] = load(from + m * stride + n * LANES<T>);
    }
  }

  void write(T* to, int64_t stride) const {
    for (int m = 0; m < ROWS; ++m) {
      for (int n = 0; n < VECTORS; ++n) store(to + m * stride + n * LANES<T>, v[m][n]);
    }
  }
};

// Which pixels of a tile may be attended to.
template <typename T>
struct Allowed {
  uint8_t bytes[ROWS][BLOCK<T>];

  // mask [Q,S] of the image or null: all. False where there are none.
  bool read(const uint8_t* mask, const Sizes& n, int64_t query, int64_t pixel) {
    const int64_t rows = std::min<int64_t>(ROWS, n.Q - query), count = std::min(BLOCK<T>, n.S - pixel);
    if (mask != nullptr && rows == ROWS && count == BLOCK<T>) {  // nearly always
      for (int m = 0; m < ROWS; ++m) std::memcpy(bytes[m], mask + (query + m) * n.S + pixel, BLOCK<T>);
    } else {
      std::memset(bytes, 0, sizeof bytes);
      for (int64_t m = 0; m < rows; ++m) {
        if (mask == nullptr) {
          std::memset(bytes[m], 1, count);
        } else {
          std::memcpy(bytes[m], mask + (query + m) * n.S + pixel, count);
        }
      }
    }
    uint64_t any = 0, eight;
    for (size_t i = 0; i < sizeof bytes; i += sizeof eight) {
      std::memcpy(&eight, &bytes[0][0] + i, sizeof eight);
      any |= eight;
    }
    return any != 0;
  }

  // values where allowed, else other ones; of vector n in row m
  Vec<T> select(int m, int n, const Vec<T>& values, const Vec<T>& others) const {
    typedef uint8_t Bytes __attribute__((vector_size(LANES<T>)));
    Bytes of_vector;
    std::memcpy(&of_vector, bytes[m] + n * LANES<T>, sizeof of_vector);
    return __builtin_convertvector(of_vector, Index<T>) != 0 ? values : others;
  }
};

// packed [rows,wide]: from [count,D], rows `stride` apart, times a factor; zeros around.
template <typename T>
void pack(const T* from, int64_t stride, int64_t count, int64_t D, T factor, T* packed, int64_t rows, int64_t wide) {
  for (int64_t i = 0; i < rows; ++i, from += stride, packed += wide) {
    const int64_t filled = i < count ? D : 0;
    for (int64_t d = 0; d < filled; ++d) packed[d] = from[d] * factor;
    std::fill(packed + filled, packed + wide, T(0));
  }
}

// turned [wide,BLOCK] from rows [BLOCK,wide]
template <typename T>
void turn(const T* rows, int64_t wide, T* turned) {
  for (int64_t p = 0; p < BLOCK<T>; p += LANES<T>) {
    for (int64_t d = 0; d < wide; d += LANES<T>) {
      simd::transpose(rows + p * wide + d, wide, turned + d * BLOCK<T> + p, BLOCK<T>);
    }
  }
}

template <typename T>
bool any(const Index<T>& truths) {
  uint64_t words[sizeof truths / sizeof(uint64_t)], all = 0;
  std::memcpy(words, &truths, sizeof truths);
  for (const uint64_t word : words) all |= word;
  return all != 0;
}

}  // namespace m2f::masked_attention
