// The forward and the backward pass over one task. See mask2former/ops/neighborhood_attn.py for what is computed.
//
// Rows of queries are taken two at a time, since they see the same rows of keys but one, and in tiles of L queries.
// The backward pass computes the weights again from the saved logarithms of their sums.
#pragma once

#include <cmath>

#include "neighborhood_attn.h"

namespace m2f::neighborhood {

constexpr int PAIR = 2;  // rows of queries

// For each row of a pair the rows of keys [begin, end) that are looked at; start is the first that it sees.
struct Seen {
  int start[PAIR], begin[PAIR] = {0, 0}, end[PAIR] = {0, 0};

  bool has(int r, int key) const { return key >= begin[r] && key < end[r]; }
  // All rows of keys that either looks at are in [first(), last()).
  int first() const { return begin[1] < end[1] ? std::min(begin[0], begin[1]) : begin[0]; }
  int last() const { return std::max(end[0], end[1]); }
  // Rows of the pair that look at this row of keys; returns how many.
  int of(int key, int* found) const {
    int count = 0;
    for (int r = 0; r < PAIR; ++r)
      if (has(r, key)) found[count++] = r;
    return count;
  }
};

// Products [k,k,L] of each row's tile [D,L] with the keys its queries see.
template <typename T>
void tile_products(const Seen& seen, const Tile<T>& tile, const Layout<T>& layout, T* const* tiles,
                   Ring<T>& keys, Vec<T>* const* products) {
  for (int y = seen.first(); y < seen.last(); ++y) {
    int found[PAIR];
    const int count = seen.of(y, found);
    const T* of[PAIR];
    Vec<T>* to[PAIR];
    for (int r = 0; r < count; ++r) {
      of[r] = tiles[found[r]];
      to[r] = products[found[r]] + (y - seen.start[found[r]]) * layout.k;
    }
    const auto multiply = count == 2 ? (tile.straight ? dot_products<T, 2, false> : dot_products<T, 2, true>)
                                     : (tile.straight ? dot_products<T, 1, false> : dot_products<T, 1, true>);
    if (count) multiply(of, keys[y] + tile.starts[0], layout.stride, layout.D, tile.start_index, layout.k, to);
  }
}

// rpb of one head, [2k-1,2k-1] with room for a vector behind each row; zeros where there is none.
template <typename T>
class Bias {
 public:
  explicit Bias(int k) : edge_(2 * k - 1), row_size_(edge_ + LANES<T>), table_(edge_ * row_size_) {}

  void read(const T* rpb) {
    if (rpb)
      for (int64_t i = 0; i < edge_; ++i) std::copy_n(rpb + i * edge_, edge_, table_ + i * row_size_);
  }
  // What each query of the tile adds for its j-th column; down: row of rpb.
  Vec<T> get(int down, const Tile<T>& tile, int j) {
    const T* entry = table_ + down * row_size_ + tile.right + j;
    return tile.straight ? broadcast<T>(*entry) : permute<T>(load(entry), tile.right_index);
  }

 private:
  int64_t edge_, row_size_;
  Buffer<T> table_;
};

template <typename T>
struct Forward {
  const T *q, *k, *v, *rpb;
  T *out, *lse;
  const int64_t* strides;  // of q, k, v and out
  Sizes n;
  T scale;
};

// What a thread needs for the forward pass.
template <typename T>
struct ForwardScratch {
  Layout<T> layout;
  Ring<T> keys, values;  // keys are transposed
  Buffer<T> row, tile, tiles, sums;
  Buffer<Vec<T>> weights;
  Bias<T> bias;

  explicit ForwardScratch(const Sizes& n)
      : layout(n),
        keys(layout.k + 1, layout.depth * layout.stride),
        values(layout.k + 1, layout.columns * layout.depth),
        row(layout.columns * layout.depth),
        tile(LANES<T> * layout.depth),
        tiles(PAIR * layout.depth * LANES<T>),
        sums(SHARING * layout.depth),
        weights(PAIR * layout.k * layout.k),
        bias(layout.k) {}
};

// Exponentials of logits [k,k,L] plus bias, less their maximum; returns their sums, and the maxima.
template <typename T>
Vec<T> exponentials(Vec<T>* logits, int down, const Tile<T>& tile, int k, Bias<T>& bias, Vec<T>& highest) {
  highest = broadcast<T>(-INFINITY);
  for (int i = 0; i < k; ++i)
    for (int j = 0; j < k; ++j) {
      Vec<T>& logit = logits[i * k + j];
      logit += bias.get(down + i, tile, j);
      highest = logit > highest ? logit : highest;
    }
  Vec<T> sum = {};
  for (int i = 0; i < k * k; ++i) sum += logits[i] = exp_of_negative<T>(logits[i] - highest);
  return sum;
}

template <typename T>
void forward_tile(const Forward<T>& f, const Task& task, int y, int rows, const Tile<T>& tile, ForwardScratch<T>& s) {
  const int k = s.layout.k, D = s.layout.D;
  const auto q = task.plane(f.q, f.strides, f.n.dilation);
  const auto out = task.plane(f.out, f.strides + 12, f.n.dilation);
  Seen seen;
  T* tiles[PAIR] = {};
  Vec<T>* weights[PAIR] = {};
  for (int r = 0; r < rows; ++r) {
    seen.start[r] = seen.begin[r] = task.rows.start(y + r);
    seen.end[r] = seen.begin[r] + k;
    tiles[r] = s.tiles + r * s.layout.depth * LANES<T>;
    weights[r] = s.weights + r * k * k;
    pack_tile<T>(q, y + r, tile, s.layout, f.scale, s.tile, tiles[r]);
    prefetch_next(q, y + r, tile, task.columns, D);
  }
  tile_products(seen, tile, s.layout, tiles, s.keys, weights);
  std::unique_ptr<const T*[]> values(new const T*[k]);
  for (int r = 0; r < rows; ++r) {
    Vec<T> highest;
    const Vec<T> sum = exponentials(weights[r], seen.start[r] - (y + r) + k - 1, tile, k, s.bias, highest);
    for (int i = 0; i < k; ++i) values[i] = s.values[seen.start[r] + i];
    const int64_t row = task.group_y + (y + r) * f.n.dilation;
    T* lse = f.lse + ((task.b * f.n.N + task.n) * f.n.H + row) * f.n.W + task.group_x;
    for (int x = 0; x < tile.queries; ++x) {
      if (x % SHARING == 0)
        weighted_sums(reinterpret_cast<const T*>(weights[r]) + x, tile.starts + x, k, values.get(), s.layout.depth,
                      static_cast<T*>(s.sums));
      T* pixel = out.at(y + r, tile.x + x);
      for (int d = 0; d < D; ++d) pixel[d] = s.sums[x % SHARING * s.layout.depth + d] / sum[x];
      lse[(tile.x + x) * f.n.dilation] = highest[x] + std::log(sum[x]);
    }
  }
}

template <typename T>
void forward_task(const Forward<T>& f, const Task& task, ForwardScratch<T>& s) {
  const auto keys = task.plane(f.k, f.strides + 4, f.n.dilation);
  const auto values = task.plane(f.v, f.strides + 8, f.n.dilation);
  const int64_t edge = 2 * f.n.k - 1;
  s.bias.read(f.rpb ? f.rpb + task.n * edge * edge : nullptr);
  const int end = std::min(task.end, task.rows.real);
  for (int left = 0; left < task.columns.real; left += STRIPE) {
    const int right = std::min(left + STRIPE, task.columns.real);
    const int first = task.columns.start(left), count = task.columns.start(right - 1) + s.layout.k - first;
    int packed = task.rows.start(task.begin);
    for (int y = task.begin; y < end; y += PAIR) {
      const int rows = std::min(end - y, PAIR);
      for (; packed < task.rows.start(y + rows - 1) + s.layout.k; ++packed) {
        pack_row<T>(keys, task.rows, task.columns, packed, first, count, s.layout, s.row);
        transpose_row<T>(s.row, count, s.layout, s.keys[packed]);
        pack_row<T>(values, task.rows, task.columns, packed, first, count, s.layout, s.values[packed]);
      }
      for (int x = left; x < right; x += LANES<T>)
        forward_tile(f, task, y, rows, Tile<T>(task.columns, x, right, first), s);
    }
  }
}

}  // namespace m2f::neighborhood
