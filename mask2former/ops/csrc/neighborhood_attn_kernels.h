// The three loops neighbourhood attention spends its time in, each on a few registers.
//
// L lanes of a vector, D channels padded to whole vectors, k kernel size, R rows of queries (1 or 2).
// A tile is up to L queries next to each other in a row (of each of R rows). starts[l] is the first key column of query
// l, and from one query to the next it is the same or one more. Weights of a tile are [k,k,L]: key row, key column
// counted from the query's first one, query.
#pragma once

#include "simd.h"

namespace m2f::neighborhood {

using namespace simd;

constexpr int SHARING = 4;  // queries (or keys) that share a loaded vector
// Vectors of channels held at once, SHARING * DEPTH sums; key columns of dot_products at once, R * COLUMNS sums.
#if defined(__AVX512VL__)  // 32 registers of 32 bytes
constexpr int DEPTH = 4, COLUMNS = 5;
#elif defined(__AVX__) || defined(__aarch64__)  // 16 of them, or 32 of half the size
constexpr int DEPTH = 2, COLUMNS = 5;
#else
constexpr int DEPTH = 1, COLUMNS = 2;
#endif

template <typename T, int R, int J, bool SHUFFLED>
inline void dot_columns(const T* const* queries, const T* keys, int64_t stride, int channels, Index<T> index,
                        Vec<T>* const* out) {
  Vec<T> sum[R][J] = {};
  for (int d = 0; d < channels; ++d) {
    Vec<T> q[R];
    for (int r = 0; r < R; ++r) q[r] = load(queries[r] + d * LANES<T>);
    for (int j = 0; j < J; ++j) {
      Vec<T> key = load(keys + d * stride + j);
      if (SHUFFLED) key = permute<T>(key, index);
      for (int r = 0; r < R; ++r) sum[r][j] += q[r] * key;
    }
  }
  for (int r = 0; r < R; ++r)
    for (int j = 0; j < J; ++j) out[r][j] = sum[r][j];
}

// out[r][j] = queries of row r times key `starts + j` of each, for one row of keys.
//
// queries  R tiles [channels,L];  keys  [channels,stride], from the tile's first key column on
// index    starts less the first one; not looked at unless SHUFFLED: else starts are consecutive
template <typename T, int R, bool SHUFFLED>
inline void dot_products(const T* const* queries, const T* keys, int64_t stride, int channels, Index<T> index,
                         int kernel, Vec<T>* const* out) {
  for (int j = 0, blocks = (kernel + COLUMNS - 1) / COLUMNS; blocks; --blocks) {
    const int width = (kernel - j + blocks - 1) / blocks;
    Vec<T>* to[R];
    for (int r = 0; r < R; ++r) to[r] = out[r] + j;
    switch (width) {
      case 1: dot_columns<T, R, 1, SHUFFLED>(queries, keys + j, stride, channels, index, to); break;
      case 2: dot_columns<T, R, 2, SHUFFLED>(queries, keys + j, stride, channels, index, to); break;
      case 3: dot_columns<T, R, 3, SHUFFLED>(queries, keys + j, stride, channels, index, to); break;
      case 4: dot_columns<T, R, 4, SHUFFLED>(queries, keys + j, stride, channels, index, to); break;
      default: dot_columns<T, R, 5, SHUFFLED>(queries, keys + j, stride, channels, index, to);
    }
    j += width;
  }
}

template <typename T, int N>
inline void sum_block(const T* weights, const int* starts, int kernel, const T* const* rows, int64_t depth, int64_t d,
                      T* out) {
  Vec<T> sum[SHARING][N] = {};
  const int first = starts[0], last = starts[SHARING - 1];
  for (int i = 0; i < kernel; ++i) {
    const T* of_row = weights + int64_t(i) * kernel * LANES<T>;
    for (int y = first; y < last + kernel; ++y) {
      Vec<T> value[N];
      for (int n = 0; n < N; ++n) value[n] = load(rows[i] + y * depth + d + n * LANES<T>);
      const bool all = y >= last && y < first + kernel;
      for (int x = 0; x < SHARING; ++x) {
        const int j = y - starts[x];
        if (!all && unsigned(j) >= unsigned(kernel)) continue;  // query x does not see key y
        const T weight = of_row[j * LANES<T> + x];
        for (int n = 0; n < N; ++n) sum[x][n] += value[n] * weight;
      }
    }
  }
  for (int x = 0; x < SHARING; ++x)
    for (int n = 0; n < N; ++n) store(out + x * depth + d + n * LANES<T>, sum[x][n]);
}

// out [SHARING,D] = sums of the k rows [columns,D] by the weights of SHARING queries of a tile.
template <typename T>
inline void weighted_sums(const T* weights, const int* starts, int kernel, const T* const* rows, int64_t depth,
                          T* out) {
  for (int64_t d = 0; d < depth;) {
    const bool deep = depth - d >= DEPTH * LANES<T>;
    const auto block = deep ? sum_block<T, DEPTH> : sum_block<T, 1>;
    block(weights, starts, kernel, rows, depth, d, out);
    d += (deep ? DEPTH : 1) * LANES<T>;
  }
}

// What one row of queries sends to one row of keys.
template <typename T>
struct Sent {
  const T* weights;   // [k,L]
  const T* vectors;   // [L,D]
};

template <typename T, int N>
inline void spread_block(T* keys, int first, const Sent<T>* sent, int senders, const int* starts, int queries,
                         int kernel, int64_t depth, int64_t d) {
  Vec<T> sum[SHARING][N];
  for (int y = 0; y < SHARING; ++y)
    for (int n = 0; n < N; ++n) sum[y][n] = load(keys + y * depth + n * LANES<T>);
  for (int r = 0; r < senders; ++r) {
    for (int x = 0; x < queries; ++x) {
      const int j = first - starts[x];
      if (j <= -SHARING || j >= kernel) continue;
      const bool all = j >= 0 && j + SHARING <= kernel;
      Vec<T> vector[N];
      for (int n = 0; n < N; ++n) vector[n] = load(sent[r].vectors + x * depth + d + n * LANES<T>);
      for (int y = 0; y < SHARING; ++y) {
        if (!all && unsigned(j + y) >= unsigned(kernel)) continue;
        const T weight = sent[r].weights[(j + y) * LANES<T> + x];
        for (int n = 0; n < N; ++n) sum[y][n] += vector[n] * weight;
      }
    }
  }
  for (int y = 0; y < SHARING; ++y)
    for (int n = 0; n < N; ++n) store(keys + y * depth + n * LANES<T>, sum[y][n]);
}

// Add to each key of a row [columns,D] the vectors of the tile's queries that see it, by their weights.
//
// The row must have room for SHARING - 1 columns behind the last key.
template <typename T>
inline void spread(T* row, const Sent<T>* sent, int senders, const int* starts, int queries, int kernel,
                   int64_t depth) {
  for (int y = starts[0]; y < starts[queries - 1] + kernel; y += SHARING) {
    for (int64_t d = 0; d < depth;) {
      const bool deep = depth - d >= DEPTH * LANES<T>;
      const auto block = deep ? spread_block<T, DEPTH> : spread_block<T, 1>;
      block(row + y * depth + d, y, sent, senders, starts, queries, kernel, depth, d);
      d += (deep ? DEPTH : 1) * LANES<T>;
    }
  }
}

}  // namespace m2f::neighborhood
