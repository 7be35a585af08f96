// Bilinear values of maps and masks at points on the CPU. See mask2former/ops/point_sample.py for what is computed.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <vector>

#include "common.h"

namespace m2f::points {
namespace {

// N maps, H W their size, C channels, P points (x, y)

// Where a coordinate in [0,1] lies on an axis of `size` pixels: between two neighbours, counted from the zero that is
// put before the first pixel. What is beyond the border or not a number lies on zeros.
template <typename T>
struct Place {
  int32_t index;
  T low, high;  // weights of this pixel and the next

  Place(T at, int64_t size) {
    const T pixel = ((2 * at - 1) + 1) * (T(size) / 2) - T(0.5);  // rounded as F.grid_sample does
    const T inside = std::min(pixel > -1 ? pixel : T(-1), T(size));
    const T below = std::floor(inside);
    index = int32_t(below) + 1;
    high = inside - below;
    low = 1 - high;
  }
};

// A map with zeros around it: one row and column before and two behind.
template <typename T>
class Padded {
 public:
  Padded(int64_t height, int64_t width)
      : H_(height), W_(width), stride_(int32_t(width + 3)), values_((height + 3) * (width + 3)) {}

  void read(const T* map) {
    for (int64_t y = 0; y < H_; ++y) std::copy_n(map + y * W_, W_, row(y));
  }

  void write(T* map) {
    for (int64_t y = 0; y < H_; ++y) std::copy_n(row(y), W_, map + y * W_);
  }

  void clear() { std::fill(values_.begin(), values_.end(), T(0)); }

  // Values [P] at points [P,2].
  void sample(const T* points, int64_t P, T* out) const {
    const T* values = values_.data();
    for (int64_t p = 0; p < P; ++p) {
      const Place<T> x(points[2 * p], W_), y(points[2 * p + 1], H_);
      const int32_t at = y.index * stride_ + x.index;
      out[p] = values[at] * (x.low * y.low) + values[at + 1] * (x.high * y.low) +
               values[at + stride_] * (x.low * y.high) + values[at + stride_ + 1] * (x.high * y.high);
    }
  }

  // Adds to each pixel what samples with gradients [P] give it.
  void scatter(const T* points, const T* grad, int64_t P) {
    T* values = values_.data();
    for (int64_t p = 0; p < P; ++p) {
      const Place<T> x(points[2 * p], W_), y(points[2 * p + 1], H_);
      T* at = values + y.index * stride_ + x.index;
      const T top = grad[p] * y.low, bottom = grad[p] * y.high;
      at[0] += top * x.low;
      at[1] += top * x.high;
      at[stride_] += bottom * x.low;
      at[stride_ + 1] += bottom * x.high;
    }
  }

 private:
  T* row(int64_t y) { return values_.data() + (y + 1) * stride_ + 1; }

  int64_t H_, W_;
  int32_t stride_;
  std::vector<T> values_;
};

// A size is a whole number in float, too, or a place could lie behind the zeros; an index is one of 32 bits.
bool fits(int64_t N, int64_t H, int64_t W, int64_t P) {
  return std::min({N, P, H - 1, W - 1}) >= 0 && std::max(H, W) <= 1 << 24 && (H + 3) * (W + 3) < (1LL << 31);
}

template <typename T>
void sample(const T* maps, const T* points, T* out, int64_t N, int64_t H, int64_t W, int64_t P, int threads) {
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    Padded<T> map(H, W);
#pragma omp for schedule(static)
    for (int64_t n = 0; n < N; ++n) {
      map.read(maps + n * H * W);
      map.sample(points + n * P * 2, P, out + n * P);
    }
  }
}

template <typename T>
void scatter(const T* grad, const T* points, T* maps, int64_t N, int64_t H, int64_t W, int64_t P, int threads) {
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    Padded<T> map(H, W);
#pragma omp for schedule(static)
    for (int64_t n = 0; n < N; ++n) {
      map.clear();
      map.scatter(points + n * P * 2, grad + n * P, P);
      map.write(maps + n * H * W);
    }
  }
}

// Finds the smallest absolute values among many. Their bits, read as an integer, have the same order; NaN comes last.
template <typename T>
class Smallest {
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  // bins are the 11 bits behind the sign's: the exponent and, where they fit, the first digits
  static constexpr int kShift = 8 * sizeof(T) - 12, kBins = 1 << 11;

 public:
  // Of points [P,2] those with the `count` smallest of |values| [P], in their order; the first of equals.
  void choose(const T* values, const T* points, int64_t P, int64_t count, T* out) {
    if (count == 0) return;
    keys_.resize(P);
    std::memcpy(keys_.data(), values, P * sizeof(T));
    for (Bits& key : keys_) key &= ~Bits(0) >> 1;
    int64_t equals;
    const Bits last = find_last(count, &equals);
    for (int64_t p = 0; count > 0; ++p) {  // without branches: they would be guessed wrongly
      std::memcpy(out, points + 2 * p, 2 * sizeof(T));
      const int64_t equal = (keys_[p] == last) & (equals > 0), chosen = (keys_[p] < last) | equal;
      equals -= equal;
      out += 2 * chosen;
      count -= chosen;
    }
  }

 private:
  // The largest of the `count` smallest keys, and how many of these equal it.
  Bits find_last(int64_t count, int64_t* equals) {
    int64_t sizes[kBins] = {};
    for (Bits key : keys_) ++sizes[key >> kShift];
    Bits bin = 0;
    for (; sizes[bin] < count; ++bin) count -= sizes[bin];
    members_.clear();
    for (Bits key : keys_) {
      if (key >> kShift == bin) members_.push_back(key);
    }
    const auto nth = members_.begin() + (count - 1);
    std::nth_element(members_.begin(), nth, members_.end());
    *equals = count - std::count_if(members_.begin(), nth, [=](Bits key) { return key < *nth; });
    return *nth;
  }

  std::vector<Bits> keys_, members_;
};

// out [N,P,2]: the first `count` of each map's points are set to those of its candidates [N,K,2] where it is least
// certain.
template <typename T>
void choose(const T* maps, const T* candidates, T* out, int64_t N, int64_t H, int64_t W, int64_t K, int64_t count,
            int64_t P, int threads) {
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    Padded<T> map(H, W);
    Smallest<T> smallest;
    std::vector<T> values(K);
#pragma omp for schedule(static)
    for (int64_t n = 0; n < N; ++n) {
      map.read(maps + n * H * W);
      map.sample(candidates + n * K * 2, K, values.data());
      smallest.choose(values.data(), candidates + n * K * 2, K, count, out + n * P * 2);
    }
  }
}

// out [N,P,C] of maps [N,H,W,C] at points [N/T,P,2], which T maps after the other share.
template <typename T>
void sample_pixels(const T* maps, const T* points, T* out, int64_t N, int64_t H, int64_t W, int64_t C, int64_t P,
                   int64_t frames, int threads) {
  const std::vector<T> nothing(C);
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (int64_t i = 0; i < N * P; ++i) {
    const int64_t n = i / P;
    const T* point = points + (n / frames * P + i % P) * 2;
    const Place<T> x(point[0], W), y(point[1], H);
    const auto pixel = [&](int64_t row, int64_t column) {  // counted from the zeros before the first
      const bool inside = row >= 1 && row <= H && column >= 1 && column <= W;
      return inside ? maps + ((n * H + row - 1) * W + column - 1) * C : nothing.data();
    };
    const T *a = pixel(y.index, x.index), *b = pixel(y.index, x.index + 1);
    const T *c = pixel(y.index + 1, x.index), *d = pixel(y.index + 1, x.index + 1);
    const T wa = x.low * y.low, wb = x.high * y.low, wc = x.low * y.high, wd = x.high * y.high;
    T* to = out + i * C;
    for (int64_t k = 0; k < C; ++k) to[k] = a[k] * wa + b[k] * wb + c[k] * wc + d[k] * wd;
  }
}

}  // namespace
}  // namespace m2f::points

// All contiguous. Values: maps [N,H,W], points [N,P,2], out and grad [N,P]; maps of the backward pass are overwritten.
// The choice: candidates [N,K,2], out [N,P,2]. Pixels: maps [N,H,W,C], points [N/frames,P,2], out [N,P,C].
#define M2F_POINT_SAMPLE(T, SUFFIX)                                                                                  \
  M2F_EXPORT int m2f_sample_maps_forward_##SUFFIX(const T* maps, const T* points, T* out, int64_t N, int64_t H,      \
                                                  int64_t W, int64_t P, int64_t threads) {                           \
    if (!m2f::points::fits(N, H, W, P) || threads < 1) return m2f::kBadSize;                                         \
    m2f::points::sample(maps, points, out, N, H, W, P, int(threads));                                                \
    return m2f::kOk;                                                                                                 \
  }                                                                                                                  \
  M2F_EXPORT int m2f_sample_maps_backward_##SUFFIX(const T* grad, const T* points, T* maps, int64_t N, int64_t H,    \
                                                   int64_t W, int64_t P, int64_t threads) {                          \
    if (!m2f::points::fits(N, H, W, P) || threads < 1) return m2f::kBadSize;                                         \
    m2f::points::scatter(grad, points, maps, N, H, W, P, int(threads));                                              \
    return m2f::kOk;                                                                                                 \
  }                                                                                                                  \
  M2F_EXPORT int m2f_least_certain_##SUFFIX(const T* maps, const T* candidates, T* out, int64_t N, int64_t H,        \
                                            int64_t W, int64_t K, int64_t count, int64_t P, int64_t threads) {       \
    if (!m2f::points::fits(N, H, W, K) || count < 0 || count > std::min(K, P) || threads < 1) return m2f::kBadSize;  \
    m2f::points::choose(maps, candidates, out, N, H, W, K, count, P, int(threads));                                  \
    return m2f::kOk;                                                                                                 \
  }                                                                                                                  \
  M2F_EXPORT int m2f_sample_pixels_##SUFFIX(const T* maps, const T* points, T* out, int64_t N, int64_t H, int64_t W, \
                                            int64_t C, int64_t P, int64_t frames, int64_t threads) {                 \
    if (!m2f::points::fits(N, H, W, P) || std::min(C, frames) < 1 || N % frames || threads < 1) return m2f::kBadSize; \
    m2f::points::sample_pixels(maps, points, out, N, H, W, C, P, frames, int(threads));                              \
    return m2f::kOk;                                                                                                 \
  }

M2F_POINT_SAMPLE(float, f32)
M2F_POINT_SAMPLE(double, f64)
