// Neighbourhood attention on the CPU: which pixels belong together, and where they lie in memory.
//
// Pixels that are a multiple of the dilation apart, in rows and in columns, form a group. Inside a group attention has
// no dilation, so that everything below a task knows only rows and columns of one group.
// B batch, N heads, H W pixels, D channels per head, k kernel size
#pragma once

#include <algorithm>
#include <memory>

#include "common.h"
#include "neighborhood_attn_kernels.h"

namespace m2f::neighborhood {

struct Sizes {
  int64_t B, N, H, W, D, k, dilation;
};

// Rows or columns of a group. Maps smaller than k * dilation go on as zeros: there length is more than real.
struct Axis {
  int k, length, real;

  Axis(int64_t size, const Sizes& n, int64_t group)
      : k(int(n.k)), length(count(std::max(size, n.k * n.dilation), n, group)), real(count(size, n, group)) {}

  // First of the k keys that a query sees: centred, and shifted inwards near a border.
  int start(int query) const { return std::clamp(query - k / 2, 0, length - k); }

 private:
  static int count(int64_t size, const Sizes& n, int64_t group) {
    return int((std::max<int64_t>(size - group, 0) + n.dilation - 1) / n.dilation);
  }
};

// The part of a tensor [B,N,H,W,D] that is one image, one head and one group; channels lie side by side.
template <typename T>
struct Plane {
  T* data;
  int64_t row, column;  // elements from one to the next

  // strides: elements from one image, head, row and column of the tensor to the next
  Plane(T* tensor, const int64_t* strides, int64_t dilation, int64_t b, int64_t n, int64_t group_y, int64_t group_x)
      : data(tensor + b * strides[0] + n * strides[1] + group_y * strides[2] + group_x * strides[3]),
        row(strides[2] * dilation),
        column(strides[3] * dilation) {}

  T* at(int y, int x) const { return data + y * row + x * column; }
};

// Zeros, at the start of a cache line.
template <typename T>
class Buffer {
 public:
  explicit Buffer(int64_t size) : size_(size), memory_(new char[size * sizeof(T) + 64]) {
    data_ = reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(memory_.get()) + 63) / 64 * 64);
    clear();
  }

  operator T*() { return data_; }
  void clear() { std::fill_n(data_, size_, T{}); }

 private:
  int64_t size_;
  std::unique_ptr<char[]> memory_;
  T* data_;
};

// The k + 1 rows of keys that two rows of queries see, and their successors in their place.
template <typename T>
class Ring {
 public:
  Ring(int slots, int64_t row_size) : slots_(slots), row_size_(row_size), data_(slots * row_size) {}

  T* operator[](int row) { return data_ + row % slots_ * row_size_; }
  void clear(int row) { std::fill_n((*this)[row], row_size_, T(0)); }

 private:
  int slots_;
  int64_t row_size_;
  Buffer<T> data_;
};

// Queries next to each other in a row.
template <typename T>
struct Tile {
  int x, queries;
  int starts[LANES<T>];   // of each query, in columns of the stripe
  bool straight;          // every lane is a query, and their starts are consecutive
  int right;              // column of rpb for the first key of a query, the least of the tile's
  int rights[LANES<T>];   // of each query
  Index<T> start_index, right_index;  // starts and rights less their least

  // The queries from x on, before end; the stripe begins with column `first`.
  Tile(const Axis& columns, int x, int end, int first) : x(x), queries(std::min(end - x, LANES<T>)) {
    for (int l = 0; l < LANES<T>; ++l) {
      const int query = x + std::min(l, queries - 1);  // lanes that are no query do as the last one
      starts[l] = columns.start(query) - first;
      rights[l] = columns.start(query) - query + columns.k - 1;
    }
    right = *std::min_element(rights, rights + LANES<T>);
    for (int l = 0; l < LANES<T>; ++l) {
      start_index[l] = starts[l] - starts[0];
      right_index[l] = rights[l] - right;
    }
    straight = queries == LANES<T> && start_index[LANES<T> - 1] == LANES<T> - 1;
  }
};

// Columns of queries that are worked on at a time: bounds the scratch memory, and keeps keys in the cache.
constexpr int STRIPE = 64;

// Numbers of scratch memory that follow from k and D.
template <typename T>
struct Layout {
  int k, D;
  int64_t depth, columns, stride;  // padded D; columns of keys of a stripe; of a transposed row, an odd number of lines

  explicit Layout(const Sizes& n)
      : k(int(n.k)),
        D(int(n.D)),
        depth((n.D + LANES<T> - 1) / LANES<T> * LANES<T>),
        columns(STRIPE + k - 1 + LANES<T> - 1),  // whole vectors; spread() needs no more
        stride(((columns + LANES<T> + 15) / 16 | 1) * 16) {}
};

// Have the channels of a pixel brought from memory, where pixels are often far from each other.
template <typename T>
inline void prefetch(const T* pixel, int channels) {
  for (int d = 0; d < channels; d += 64 / int(sizeof(T))) __builtin_prefetch(pixel + d);
}

constexpr int AHEAD = 8;  // pixels between prefetching and use

// One row of a stripe's keys: to [columns,depth].
template <typename T>
void pack_row(const Plane<const T>& from, const Axis& rows, const Axis& columns, int y, int first, int count,
              const Layout<T>& layout, T* to) {
  const int real = y < rows.real ? std::clamp(columns.real - first, 0, count) : 0;
  for (int x = 0; x < count; ++x, to += layout.depth) {
    if (x + AHEAD < real) prefetch(from.at(y, first + x + AHEAD), layout.D);
    if (x < real)
      std::copy_n(from.at(y, first + x), layout.D, to);
    else
      std::fill_n(to, layout.D, T(0));
  }
}

// [columns,depth] -> [depth,stride]. What lies behind count, up to whole vectors, is carried over as it is.
template <typename T>
void transpose_row(const T* row, int count, const Layout<T>& layout, T* to) {
  for (int x = 0; x < count; x += LANES<T>)
    for (int64_t d = 0; d < layout.depth; d += LANES<T>)
      transpose<T>(row + x * layout.depth + d, layout.depth, to + d * layout.stride + x, layout.stride);
}

// The queries of a tile, times factor: [L,depth] and [depth,L].
template <typename T>
void pack_tile(const Plane<const T>& from, int y, const Tile<T>& tile, const Layout<T>& layout, T factor, T* to,
               T* transposed) {
  for (int l = 0; l < LANES<T>; ++l) {
    const T* pixel = from.at(y, tile.x + std::min(l, tile.queries - 1));
    for (int d = 0; d < layout.D; ++d) to[l * layout.depth + d] = pixel[d] * factor;
  }
  for (int64_t d = 0; d < layout.depth; d += LANES<T>)
    transpose<T>(to + d, layout.depth, transposed + d * LANES<T>, LANES<T>);
}

// Have the pixels of the tile to the right brought from memory.
template <typename T>
void prefetch_next(const Plane<const T>& from, int y, const Tile<T>& tile, const Axis& columns, int channels) {
  for (int x = tile.x + LANES<T>; x < std::min(tile.x + 2 * LANES<T>, columns.real); ++x)
    prefetch(from.at(y, x), channels);
}

// A share of the work: rows [begin, end) of one group of one head of one image.
struct Task {
  int64_t b, n, group_y, group_x;
  Axis rows, columns;
  int begin, end;

  // chunks: shares of each group
  Task(const Sizes& n, int64_t index, int64_t chunks)
      : b(index / chunks / n.dilation / n.dilation / n.N),
        n(index / chunks / n.dilation / n.dilation % n.N),
        group_y(index / chunks / n.dilation % n.dilation),
        group_x(index / chunks % n.dilation),
        rows(n.H, n, group_y),
        columns(n.W, n, group_x),
        begin(int(rows.length * (index % chunks) / chunks)),
        end(int(rows.length * (index % chunks + 1) / chunks)) {}

  template <typename T>
  Plane<T> plane(T* tensor, const int64_t* strides, int64_t dilation) const {
    return Plane<T>(tensor, strides, dilation, b, n, group_y, group_x);
  }
};

// Shares of each group: one, where there are enough groups for all threads to have as much to do.
inline int64_t count_chunks(const Sizes& n, int64_t threads) {
  const int64_t groups = n.B * n.N * n.dilation * n.dilation;
  if (groups == 0 || groups % threads == 0 || groups >= 4 * threads) return 1;
  const int64_t rows = std::max(n.H / n.dilation, n.k);
  return std::clamp<int64_t>((4 * threads + groups - 1) / groups, 1, std::max<int64_t>(rows / n.k, 1));
}

}  // namespace m2f::neighborhood
