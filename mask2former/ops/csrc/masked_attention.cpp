// Attention of some queries to many pixels on the CPU. See mask2former/ops/masked_attention.py for what is computed.
//
// A task is a head of an image; where threads are many, some of its queries, or, in the backward pass, of its pixels.
// It goes through the pixels a block at a time and, within one, through the queries ROWS at a time; tiles of the two in
// which nothing may be attended to are skipped. Probabilities never leave the cache: the backward pass computes them
// again from the logarithms of their sums.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "common.h"
#include "masked_attention_tiles.h"

namespace m2f::masked_attention {
namespace {

using simd::broadcast;
using simd::exp_of_negative;

struct Range {
  int64_t begin, end;
};

// One head of one image; q, k, v and what is like them begin at its first channel.
template <typename T>
class Head {
  static constexpr T LOWEST = -std::numeric_limits<T>::infinity();

 public:
  Head(const Sizes& n, const T* q, const T* k, const T* v, const uint8_t* mask, T scale)
      : n_(n),
        k_(k),
        v_(v),
        mask_(mask),
        scale_(scale),
        wide_(round_up(n.D, BLOCK<T>)),
        q_(n.rows() * wide_),
        keys_(BLOCK<T> * wide_),
        values_(BLOCK<T> * wide_),
        turned_keys_(BLOCK<T> * wide_) {
    pack(q, n.width(), n.Q, n.D, scale, q_.data(), n.rows(), wide_);
  }

  // out [Q,D], rows a width apart; lse [Q]: the logarithm of the sum of a query's exponentials. Of some queries; the
  // first is a multiple of ROWS.
  void forward(Range queries, T* out, T* lse) {
    std::vector<T> sums(n_.rows() * wide_, T(0)), highest(n_.rows(), LOWEST), totals(n_.rows() * LANES<T>, T(0));
    T weights[ROWS * BLOCK<T>];
    for (int64_t pixel = 0; pixel < n_.S; pixel += BLOCK<T>) {
      read_pixels(pixel);
      for (int64_t row = queries.begin; row < queries.end; row += ROWS) {
        if (!allowed_.read(mask_, n_, row, pixel)) continue;
        T* sum = sums.data() + row * wide_;
        Tile<T> logits = tile_of_logits(row);
        for (int m = 0; m < ROWS; ++m) {
          for (int c = 0; c < VECTORS; ++c) logits.v[m][c] = allowed_.select(m, c, logits.v[m][c], broadcast(LOWEST));
        }
        raise(logits, highest.data() + row, totals.data() + row * LANES<T>, sum);
        for (int m = 0; m < ROWS; ++m) {
          T* total = totals.data() + (row + m) * LANES<T>;
          const T top = highest[row + m] == LOWEST ? T(0) : highest[row + m];
          Vec<T> added = load(total);
          for (int c = 0; c < VECTORS; ++c) {
            const Vec<T> e = exp_of_negative<T>(logits.v[m][c] - top);
            store(weights + m * BLOCK<T> + c * LANES<T>, e);
            added += e;
          }
          store(total, added);
        }
        add_to(sum, weights, values_.data());
      }
    }
    for (int64_t i = queries.begin; i < queries.end; ++i) {
      T total = 0;
      for (int l = 0; l < LANES<T>; ++l) total += totals[i * LANES<T> + l];
      const T divisor = total == 0 ? T(1) : total;  // a query that may attend to nothing
      for (int64_t d = 0; d < n_.D; ++d) out[i * n_.width() + d] = sums[i * wide_ + d] / divisor;
      lse[i] = total == 0 ? T(0) : highest[i] + std::log(total);
    }
  }

  // grad_k and grad_v [S,D] of some pixels, and what these add to grad_q [Q,D]; rows of all are a width apart.
  void backward(Range pixels, const T* grad, const T* out, const T* lse, T* grad_q, T* grad_k, T* grad_v) {
    std::vector<T> grads(n_.rows() * wide_), q_grads(n_.rows() * wide_, T(0)), turned_values(BLOCK<T> * wide_);
    std::vector<T> weights(n_.rows() * BLOCK<T>), changes(n_.rows() * BLOCK<T>);
    std::vector<T> dots(n_.rows(), T(0)), logs(n_.rows(), T(0));
    pack(grad, n_.width(), n_.Q, n_.D, T(1), grads.data(), n_.rows(), wide_);
    for (int64_t i = 0; i < n_.Q; ++i) {
      logs[i] = lse[i];
      for (int64_t d = 0; d < n_.D; ++d) dots[i] += grad[i * n_.width() + d] * out[i * n_.width() + d];
    }
    std::vector<int64_t> seen;  // first rows of the tiles that are not skipped
    for (int64_t pixel = pixels.begin; pixel < pixels.end; pixel += BLOCK<T>) {
      read_pixels(pixel);
      turn(values_.data(), wide_, turned_values.data());
      seen.clear();
      for (int64_t row = 0; row < n_.Q; row += ROWS) {
        if (!allowed_.read(mask_, n_, row, pixel)) continue;
        seen.push_back(row);
        T *weight = weights.data() + row * BLOCK<T>, *change = changes.data() + row * BLOCK<T>;
        Tile<T> tile = tile_of_logits(row);
        for (int m = 0; m < ROWS; ++m) {
          for (int c = 0; c < VECTORS; ++c) {
            tile.v[m][c] = allowed_.select(m, c, exp_of_negative<T>(tile.v[m][c] - logs[row + m]), Vec<T>{});
          }
        }
        tile.write(weight, BLOCK<T>);
        Tile<T> slopes;
        slopes.add_product(grads.data() + row * wide_, wide_, 1, turned_values.data(), BLOCK<T>, n_.D);
        for (int m = 0; m < ROWS; ++m) {
          for (int c = 0; c < VECTORS; ++c) {
            slopes.v[m][c] = load(weight + m * BLOCK<T> + c * LANES<T>) * (slopes.v[m][c] - dots[row + m]);
          }
        }
        slopes.write(change, BLOCK<T>);
        add_to(q_grads.data() + row * wide_, change, keys_.data());
      }
      const int64_t offset = pixel * n_.width(), count = std::min(BLOCK<T>, n_.S - pixel);
      gather(seen, weights.data(), grads.data(), grad_v + offset, count);
      gather(seen, changes.data(), q_.data(), grad_k + offset, count);  // q has the scale in it
    }
    for (int64_t i = 0; i < n_.Q; ++i) {
      for (int64_t d = 0; d < n_.D; ++d) grad_q[i * n_.width() + d] = q_grads[i * wide_ + d] * scale_;
    }
  }

 private:
  void read_pixels(int64_t pixel) {
    const int64_t count = std::min(BLOCK<T>, n_.S - pixel), offset = pixel * n_.width();
    pack(k_ + offset, n_.width(), count, n_.D, T(1), keys_.data(), BLOCK<T>, wide_);
    pack(v_ + offset, n_.width(), count, n_.D, T(1), values_.data(), BLOCK<T>, wide_);
    turn(keys_.data(), wide_, turned_keys_.data());
  }

  Tile<T> tile_of_logits(int64_t row) const {
    Tile<T> logits;
    logits.add_product(q_.data() + row * wide_, wide_, 1, turned_keys_.data(), BLOCK<T>, n_.D);
    return logits;
  }

  // Raises highest [ROWS] to the logits' highest, and lowers totals [ROWS,LANES] and sums [ROWS,wide] accordingly.
  void raise(const Tile<T>& logits, T* highest, T* totals, T* sums) const {
    Vec<T> largest[ROWS];
    Index<T> higher = {};
    for (int m = 0; m < ROWS; ++m) {
      largest[m] = logits.v[m][0];
      for (int c = 1; c < VECTORS; ++c) largest[m] = largest[m] > logits.v[m][c] ? largest[m] : logits.v[m][c];
      higher |= largest[m] > broadcast(highest[m]);
    }
    if (!any<T>(higher)) return;  // more often than not
    for (int m = 0; m < ROWS; ++m) {
      T top = highest[m];
      for (int l = 0; l < LANES<T>; ++l) top = largest[m][l] > top ? largest[m][l] : top;
      if (top == highest[m]) continue;
      const T factor = std::exp(highest[m] - top);
      highest[m] = top;
      for (int l = 0; l < LANES<T>; ++l) totals[m * LANES<T> + l] *= factor;
      for (int64_t d = 0; d < wide_; ++d) sums[m * wide_ + d] *= factor;
    }
  }

  // sums [ROWS,wide] += weights [ROWS,BLOCK] times rows [BLOCK,wide]
  void add_to(T* sums, const T* weights, const T* rows) const {
    for (int64_t d = 0; d < n_.D; d += BLOCK<T>) {
      Tile<T> tile;
      tile.read(sums + d, wide_);
      tile.add_product(weights, BLOCK<T>, 1, rows + d, wide_, BLOCK<T>);
      tile.write(sums + d, wide_);
    }
  }

  // to [count,D] = the transposed of weights [rows,BLOCK], times x [rows,wide], over the tiles that were seen
  void gather(const std::vector<int64_t>& seen, const T* weights, const T* x, T* to, int64_t count) const {
    T sums[ROWS * BLOCK<T>];
    for (int64_t p = 0; p < count; p += ROWS) {
      for (int64_t d = 0; d < n_.D; d += BLOCK<T>) {
        Tile<T> tile;
        for (const int64_t row : seen) {
          tile.add_product(weights + row * BLOCK<T> + p, 1, BLOCK<T>, x + row * wide_ + d, wide_, ROWS);
        }
        tile.write(sums, BLOCK<T>);
        const int64_t rows = std::min<int64_t>(ROWS, count - p), channels = std::min(BLOCK<T>, n_.D - d);
        for (int64_t m = 0; m < rows; ++m) {
          std::memcpy(to + (p + m) * n_.width() + d, sums + m * BLOCK<T>, channels * sizeof(T));
        }
      }
    }
  }

  const Sizes& n_;
  const T *k_, *v_;
  const uint8_t* mask_;
  const T scale_;
  const int64_t wide_;  // D, rounded up
  std::vector<T> q_;  // [rows,wide], times the scale
  std::vector<T> keys_, values_, turned_keys_;  // of a block of pixels: [BLOCK,wide] and, turned, [wide,BLOCK]
  Allowed<T> allowed_;
};

template <typename T>
struct Inputs {
  const T *q, *k, *v;
  const uint8_t* mask;
  T scale;
};

// Into how many parts of whole units a head's queries or pixels go, so that every thread has work.
int64_t count_parts(const Sizes& n, int64_t count, int64_t unit, int threads) {
  return std::min(round_up(threads, n.B * n.H) / (n.B * n.H), round_up(count, unit) / unit);
}

// run(head, range, part, offsets of q, k and lse) for all parts of each head's `count` queries or pixels
template <typename T, typename Run>
void for_parts(const Sizes& n, const Inputs<T>& in, int64_t count, int64_t unit, int threads, Run run) {
  const int64_t parts = count_parts(n, count, unit, threads), step = round_up((count + parts - 1) / parts, unit);
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
  for (int64_t i = 0; i < n.B * n.H * parts; ++i) {
    const int64_t part = i % parts, head = i / parts, b = head / n.H;
    const int64_t of_q = (b * n.Q * n.H + head % n.H) * n.D, of_k = (b * n.S * n.H + head % n.H) * n.D;
    const uint8_t* mask = in.mask == nullptr ? nullptr : in.mask + b * n.Q * n.S;
    Head<T> task(n, in.q + of_q, in.k + of_k, in.v + of_k, mask, in.scale);
    run(task, Range{std::min(part * step, count), std::min((part + 1) * step, count)}, part, of_q, of_k, head * n.Q);
  }
}

template <typename T>
void forward(const Sizes& n, const Inputs<T>& in, T* out, T* lse, int threads) {
  for_parts(n, in, n.Q, ROWS, threads, [&](auto& head, Range queries, int64_t, int64_t of_q, int64_t, int64_t of_lse) {
    head.forward(queries, out + of_q, lse + of_lse);
  });
}

template <typename T>
void backward(const Sizes& n, const Inputs<T>& in, const T* grad, const T* out, const T* lse, T* grad_q, T* grad_k,
              T* grad_v, int threads) {
  const int64_t size = n.B * n.Q * n.width(), parts = count_parts(n, n.S, BLOCK<T>, threads);
  std::vector<T> others((parts - 1) * size);  // grad_q of the parts behind the first
  for_parts(n, in, n.S, BLOCK<T>, threads,
            [&](auto& head, Range pixels, int64_t part, int64_t of_q, int64_t of_k, int64_t of_lse) {
              T* to = (part == 0 ? grad_q : others.data() + (part - 1) * size) + of_q;
              head.backward(pixels, grad + of_q, out + of_q, lse + of_lse, to, grad_k + of_k, grad_v + of_k);
            });
  for (int64_t part = 1; part < parts; ++part) {
    const T* other = others.data() + (part - 1) * size;
    for (int64_t i = 0; i < size; ++i) grad_q[i] += other[i];
  }
}

}  // namespace
}  // namespace m2f::masked_attention

// All contiguous: q, out and their gradients [B,Q,H,D]; k, v and theirs [B,S,H,D]; mask [B,Q,S] of 0 and 1, or null;
// lse [B,H,Q]. What is asked for is overwritten.
#define M2F_MASKED_ATTENTION(T, SUFFIX)                                                                               \
  M2F_EXPORT int m2f_masked_attention_forward_##SUFFIX(                                                               \
      const T* q, const T* k, const T* v, const uint8_t* mask, T* out, T* lse, int64_t B, int64_t H, int64_t Q,       \
      int64_t S, int64_t D, double scale, int64_t threads) {                                                          \
    if (std::min({B, H, Q, S, D, threads}) < 1) return m2f::kBadSize;                                                 \
    m2f::masked_attention::forward<T>({B, H, Q, S, D}, {q, k, v, mask, T(scale)}, out, lse, int(threads));            \
    return m2f::kOk;                                                                                                  \
  }                                                                                                                   \
  M2F_EXPORT int m2f_masked_attention_backward_##SUFFIX(                                                              \
      const T* grad, const T* q, const T* k, const T* v, const uint8_t* mask, const T* out, const T* lse, T* grad_q,  \
      T* grad_k, T* grad_v, int64_t B, int64_t H, int64_t Q, int64_t S, int64_t D, double scale, int64_t threads) {   \
    if (std::min({B, H, Q, S, D, threads}) < 1) return m2f::kBadSize;                                                 \
    m2f::masked_attention::backward<T>({B, H, Q, S, D}, {q, k, v, mask, T(scale)}, grad, out, lse, grad_q, grad_k,    \
                                       grad_v, int(threads));                                                         \
    return m2f::kOk;                                                                                                  \
  }

M2F_MASKED_ATTENTION(float, f32)
M2F_MASKED_ATTENTION(double, f64)
