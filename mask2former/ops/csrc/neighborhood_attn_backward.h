// The backward pass over one task. It owns the gradients of its rows, of queries as well as of keys: queries of other
// tasks that see its keys are looked at again, for these keys only.
#pragma once

#include "neighborhood_attn_passes.h"

namespace m2f::neighborhood {

template <typename T>
struct Backward {
  const T *q, *k, *v, *out, *grad, *rpb, *lse;
  T *grad_q, *grad_k, *grad_v, *grad_rpb;
  const int64_t* strides;  // of q, k, v, out, grad, and the gradients of q, k and v
  Sizes n;
  T scale;
};

template <typename T>
struct BackwardPlanes {
  Plane<const T> q, k, v, out, grad;
  Plane<T> grad_q, grad_k, grad_v;

  BackwardPlanes(const Backward<T>& f, const Task& task)
      : q(task.plane(f.q, f.strides, f.n.dilation)),
        k(task.plane(f.k, f.strides + 4, f.n.dilation)),
        v(task.plane(f.v, f.strides + 8, f.n.dilation)),
        out(task.plane(f.out, f.strides + 12, f.n.dilation)),
        grad(task.plane(f.grad, f.strides + 16, f.n.dilation)),
        grad_q(task.plane(f.grad_q, f.strides + 20, f.n.dilation)),
        grad_k(task.plane(f.grad_k, f.strides + 24, f.n.dilation)),
        grad_v(task.plane(f.grad_v, f.strides + 28, f.n.dilation)) {}
};

// What a thread needs for the backward pass.
template <typename T>
struct BackwardScratch {
  Layout<T> layout;
  Ring<T> keys, keys_transposed, values_transposed, grad_keys, grad_values;
  Buffer<T> row, sums;
  Buffer<T> queries, queries_transposed, upper, upper_transposed;  // of a pair's tile; upper: gradient of out
  Buffer<Vec<T>> weights, grad_logits;  // [2,k,k,L]
  Buffer<Vec<T>> grad_bias;             // [2k-1,2k-1,L]
  Bias<T> bias;

  explicit BackwardScratch(const Sizes& n)
      : layout(n),
        keys(layout.k + 1, layout.columns * layout.depth),
        keys_transposed(layout.k + 1, layout.depth * layout.stride),
        values_transposed(layout.k + 1, layout.depth * layout.stride),
        grad_keys(layout.k + 1, layout.columns * layout.depth),
        grad_values(layout.k + 1, layout.columns * layout.depth),
        row(layout.columns * layout.depth),
        sums(SHARING * layout.depth),
        queries(PAIR * LANES<T> * layout.depth),
        queries_transposed(PAIR * LANES<T> * layout.depth),
        upper(PAIR * LANES<T> * layout.depth),
        upper_transposed(PAIR * LANES<T> * layout.depth),
        weights(PAIR * layout.k * layout.k),
        grad_logits(PAIR * layout.k * layout.k),
        grad_bias((2 * layout.k - 1) * (2 * layout.k - 1)),
        bias(layout.k) {}
};

template <typename T>
class BackwardPass {
 public:
  BackwardPass(const Backward<T>& f, const Task& task, BackwardScratch<T>& scratch)
      : f_(f), task_(task), planes_(f, task), s_(scratch), k_(scratch.layout.k) {}

  void run(double* grad_rpb);

 private:
  void stripe(int left, int right);
  void pack(int y);
  void flush(int y);
  void pair(int y, int rows, int left, int right);
  void tile(int y, int rows, const Seen& seen, const Tile<T>& tile);
  void through_softmax(int y, int r, const Seen& seen, const Tile<T>& tile);
  void to_bias(int down, const Tile<T>& tile, int j, Vec<T> grad);
  void to_queries(int y, int r, const Seen& seen, const Tile<T>& tile);
  void to_keys(const Seen& seen, const Tile<T>& tile);

  bool owns(int y) const { return y >= task_.begin && y < task_.end; }
  Vec<T>* weights(int r) { return s_.weights + r * k_ * k_; }
  Vec<T>* grad_logits(int r) { return s_.grad_logits + r * k_ * k_; }
  T* of_row(Buffer<T>& tiles, int r) { return tiles + r * LANES<T> * s_.layout.depth; }

  const Backward<T>& f_;
  const Task& task_;
  BackwardPlanes<T> planes_;
  BackwardScratch<T>& s_;
  int k_, first_ = 0, count_ = 0;  // columns of the stripe's keys
};

template <typename T>
void BackwardPass<T>::run(double* grad_rpb) {
  const int64_t entries = (2 * k_ - 1) * (2 * k_ - 1);
  s_.bias.read(f_.rpb ? f_.rpb + task_.n * entries : nullptr);
  s_.grad_bias.clear();
  for (int left = 0; left < task_.columns.real; left += STRIPE)
    stripe(left, std::min(left + STRIPE, task_.columns.real));
  if (!grad_rpb) return;
  for (int64_t i = 0; i < entries; ++i)
    for (int l = 0; l < LANES<T>; ++l) grad_rpb[task_.n * entries + i] += s_.grad_bias[i][l];
}

// Columns [left, right) of queries.
template <typename T>
void BackwardPass<T>::stripe(int left, int right) {
  const Axis& rows = task_.rows;
  first_ = task_.columns.start(left);
  count_ = task_.columns.start(right - 1) + k_ - first_;
  int y = 0, end = rows.real;  // the queries that see a row of this task
  while (y < end && rows.start(y) + k_ <= task_.begin) ++y;
  while (end > y && rows.start(end - 1) >= task_.end) --end;
  if (y == end) return;
  const int begin = rows.start(y);
  int packed = begin;
  for (; y < end; y += PAIR) {
    const int count = std::min(end - y, PAIR);
    for (; packed < rows.start(y + count - 1) + k_; ++packed) {
      if (packed - (k_ + 1) >= begin) flush(packed - (k_ + 1));
      pack(packed);
    }
    pair(y, count, left, right);
  }
  for (int key = std::max(begin, packed - (k_ + 1)); key < packed; ++key) flush(key);
}

template <typename T>
void BackwardPass<T>::pack(int y) {
  const auto& layout = s_.layout;
  pack_row<T>(planes_.k, task_.rows, task_.columns, y, first_, count_, layout, s_.keys[y]);
  transpose_row<T>(s_.keys[y], count_, layout, s_.keys_transposed[y]);
  pack_row<T>(planes_.v, task_.rows, task_.columns, y, first_, count_, layout, s_.row);
  transpose_row<T>(s_.row, count_, layout, s_.values_transposed[y]);
  s_.grad_keys.clear(y);
  s_.grad_values.clear(y);
}

// Add what a row of keys has received to the results. Stripes overlap, but belong to the same task.
template <typename T>
void BackwardPass<T>::flush(int y) {
  if (!owns(y) || y >= task_.rows.real) return;
  for (int x = 0; x < std::min(count_, task_.columns.real - first_); ++x)
    for (int d = 0; d < s_.layout.D; ++d) {
      planes_.grad_k.at(y, first_ + x)[d] += s_.grad_keys[y][x * s_.layout.depth + d];
      planes_.grad_v.at(y, first_ + x)[d] += s_.grad_values[y][x * s_.layout.depth + d];
    }
}

template <typename T>
void BackwardPass<T>::pair(int y, int rows, int left, int right) {
  Seen seen;
  for (int r = 0; r < rows; ++r) {
    const int start = seen.start[r] = task_.rows.start(y + r);
    seen.begin[r] = owns(y + r) ? start : std::max(start, task_.begin);
    seen.end[r] = owns(y + r) ? start + k_ : std::min(start + k_, task_.end);
  }
  for (int x = left; x < right; x += LANES<T>) tile(y, rows, seen, Tile<T>(task_.columns, x, right, first_));
}

template <typename T>
void BackwardPass<T>::tile(int y, int rows, const Seen& seen, const Tile<T>& tile) {
  const auto& layout = s_.layout;
  T *queries[PAIR] = {}, *upper[PAIR] = {};
  Vec<T>*to_weights[PAIR] = {}, *to_grads[PAIR] = {};
  for (int r = 0; r < rows; ++r) {
    queries[r] = of_row(s_.queries_transposed, r);
    upper[r] = of_row(s_.upper_transposed, r);
    to_weights[r] = weights(r);
    to_grads[r] = grad_logits(r);
    pack_tile<T>(planes_.q, y + r, tile, layout, f_.scale, of_row(s_.queries, r), queries[r]);
    pack_tile<T>(planes_.grad, y + r, tile, layout, T(1), of_row(s_.upper, r), upper[r]);
    for (const auto* plane : {&planes_.q, &planes_.grad, &planes_.out})
      prefetch_next(*plane, y + r, tile, task_.columns, layout.D);
  }
  tile_products(seen, tile, layout, queries, s_.keys_transposed, to_weights);
  tile_products(seen, tile, layout, upper, s_.values_transposed, to_grads);
  for (int r = 0; r < rows; ++r) {
    through_softmax(y, r, seen, tile);
    if (owns(y + r)) to_queries(y, r, seen, tile);
  }
  to_keys(seen, tile);
}

// From logits and the gradients of weights to weights and the gradients of logits.
template <typename T>
void BackwardPass<T>::through_softmax(int y, int r, const Seen& seen, const Tile<T>& tile) {
  const int64_t row = task_.group_y + (y + r) * f_.n.dilation;
  const T* lse = f_.lse + ((task_.b * f_.n.N + task_.n) * f_.n.H + row) * f_.n.W + task_.group_x;
  Vec<T> log_sum = broadcast<T>(INFINITY), mean = {};  // lanes that are no query weigh nothing
  for (int x = 0; x < tile.queries; ++x) {
    log_sum[x] = lse[(tile.x + x) * f_.n.dilation];
    const T* out = planes_.out.at(y + r, tile.x + x);
    const T* upper = of_row(s_.upper, r) + x * s_.layout.depth;
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int d = 0; d < s_.layout.D; ++d) sum += out[d] * upper[d];
    mean[x] = sum;  // of the weights' gradients, each by its weight
  }
  const int down = seen.start[r] - (y + r) + k_ - 1;
  const bool biased = f_.rpb && owns(y + r);
  for (int i = seen.begin[r] - seen.start[r]; i < seen.end[r] - seen.start[r]; ++i)
    for (int j = 0; j < k_; ++j) {
      Vec<T>&weight = weights(r)[i * k_ + j], &grad = grad_logits(r)[i * k_ + j];
      weight = exp_of_negative<T>(weight + s_.bias.get(down + i, tile, j) - log_sum);
      grad = weight * (grad - mean);
      if (biased) to_bias(down + i, tile, j, grad);
    }
}

template <typename T>
void BackwardPass<T>::to_bias(int down, const Tile<T>& tile, int j, Vec<T> grad) {
  Vec<T>* row = s_.grad_bias + down * (2 * k_ - 1) + j;
  if (tile.straight)
    row[tile.right] += grad;
  else
    for (int x = 0; x < tile.queries; ++x) row[tile.rights[x]][x] += grad[x];
}

template <typename T>
void BackwardPass<T>::to_queries(int y, int r, const Seen& seen, const Tile<T>& tile) {
  std::unique_ptr<const T*[]> keys(new const T*[k_]);
  for (int i = 0; i < k_; ++i) keys[i] = s_.keys[seen.start[r] + i];
  const T* by = reinterpret_cast<T*>(grad_logits(r));
  for (int x = 0; x < tile.queries; ++x) {
    if (x % SHARING == 0) weighted_sums<T>(by + x, tile.starts + x, k_, keys.get(), s_.layout.depth, s_.sums);
    T* pixel = planes_.grad_q.at(y + r, tile.x + x);
    for (int d = 0; d < s_.layout.D; ++d) pixel[d] = f_.scale * s_.sums[x % SHARING * s_.layout.depth + d];
  }
}

template <typename T>
void BackwardPass<T>::to_keys(const Seen& seen, const Tile<T>& tile) {
  for (int key = std::max(seen.first(), task_.begin); key < std::min(seen.last(), task_.end); ++key) {
    int found[PAIR];
    Sent<T> to_key[PAIR], to_value[PAIR];
    const int count = seen.of(key, found);
    for (int c = 0; c < count; ++c) {
      const int r = found[c], i = (key - seen.start[r]) * k_;
      to_key[c] = {reinterpret_cast<T*>(grad_logits(r) + i), of_row(s_.queries, r)};
      to_value[c] = {reinterpret_cast<T*>(weights(r) + i), of_row(s_.upper, r)};
    }
    if (!count) continue;
    spread<T>(s_.grad_keys[key], to_key, count, tile.starts, tile.queries, k_, s_.layout.depth);
    spread<T>(s_.grad_values[key], to_value, count, tile.starts, tile.queries, k_, s_.layout.depth);
  }
}

template <typename T>
void backward_task(const Backward<T>& f, const Task& task, BackwardScratch<T>& scratch, double* grad_rpb) {
  BackwardPass<T>(f, task, scratch).run(grad_rpb);
}

}  // namespace m2f::neighborhood
