// Group normalisation of channels-last maps on the CPU. See mask2former/ops/group_norm.py for what is computed.
//
// Statistics are those of blocks of pixels that stay in the cache, where deviations are taken from the block's own
// mean, joined in double precision (Chan, Golub and LeVeque 1979): E[x^2] - E[x]^2 would lose digits of maps far from
// 0. Sums are joined in an order that does not depend on the number of threads.
#include <algorithm>
#include <cmath>
#include <vector>

#include "common.h"
#include "group_norm.h"

namespace m2f::group_norm {
namespace {

// Mean and squared deviations of a group's values so far.
struct Moments {
  double count = 0, mean = 0, squares = 0;

  void join(const Moments& other) {
    if (other.count == 0) return;
    const double total = count + other.count, step = other.mean - mean;
    squares += other.squares + step * step * (count / total * other.count);
    mean += step * (other.count / total);
    count = total;
  }
};

// Sum over some pixels of each channel.
template <typename T>
void add_up(const T* x, int64_t pixels, int64_t C, T* sums) {
  std::fill_n(sums, C, T(0));
  for (int64_t p = 0; p < pixels; ++p, x += C) {
#pragma omp simd
    for (int64_t c = 0; c < C; ++c) sums[c] += x[c];
  }
}

// The same of what is left without middle [C], and of its square.
template <typename T>
void add_up_around(const T* x, int64_t pixels, int64_t C, const T* middle, T* sums, T* squares) {
  std::fill_n(sums, C, T(0));
  std::fill_n(squares, C, T(0));
  for (int64_t p = 0; p < pixels; ++p, x += C) {
#pragma omp simd
    for (int64_t c = 0; c < C; ++c) {
      const T rest = x[c] - middle[c];
      sums[c] += rest;
      squares[c] += rest * rest;
    }
  }
}

// moments [G] of a part's pixels from first on; space [3,C]
template <typename T>
void measure(const Sizes& n, const T* x, int64_t pixels, T* space, Moments* moments) {
  const int64_t step = n.block<T>(), D = n.C / n.G;
  T *sums = space, *squares = space + n.C, *middle = space + 2 * n.C;
  for (int64_t p = 0; p < pixels; p += step) {
    const int64_t count = std::min(step, pixels - p);
    const T* block = x + p * n.C;
    add_up(block, count, n.C, sums);
    for (int64_t g = 0; g < n.G; ++g) {
      const double mean = std::accumulate(sums + g * D, sums + (g + 1) * D, 0.0) / double(count * D);
      std::fill_n(middle + g * D, D, T(mean));
    }
    add_up_around(block, count, n.C, middle, sums, squares);
    for (int64_t g = 0; g < n.G; ++g) {
      const double size = double(count * D), rest = std::accumulate(sums + g * D, sums + (g + 1) * D, 0.0);
      const double square = std::accumulate(squares + g * D, squares + (g + 1) * D, 0.0);
      moments[g].join({size, double(middle[g * D]) + rest / size, std::max(0.0, square - rest * rest / size)});
    }
  }
}

template <typename T>
void statistics(const Sizes& n, const T* x, double eps, double* out, int threads) {
  const int64_t parts = n.parts<T>();
  std::vector<Moments> moments(n.N * parts * n.G);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    std::vector<T> space(3 * n.C);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < n.N * parts; ++i) {
      const int64_t first = n.first<T>(i % parts), last = n.first<T>(i % parts + 1);
      measure(n, x + (i / parts * n.P() + first) * n.C, last - first, space.data(), moments.data() + i * n.G);
    }
  }
  for (int64_t i = 0; i < n.N * n.G; ++i) {
    Moments all;
    for (int64_t part = 0; part < parts; ++part) all.join(moments[(i / n.G * parts + part) * n.G + i % n.G]);
    out[2 * i] = all.mean;
    out[2 * i + 1] = 1 / std::sqrt(all.squares / all.count + eps);
  }
}

// What is added to row y of the result: a smaller map at its size.
template <typename T>
struct Coarser {
  const T* map;  // [N,h,w,C], each image contiguous, or null
  int64_t h, w, stride;  // from one image to the next

  // As PyTorch has it without align_corners: places before the first pixel count as the first.
  struct Tap {
    int64_t low, high;
    T weight;  // of high
  };
  static Tap tap(int64_t i, int64_t wanted, int64_t given) {
    const T place = std::max(T(0), (T(i) + T(0.5)) * (T(given) / T(wanted)) - T(0.5));
    const int64_t low = std::min(int64_t(place), given - 1);
    return {low, std::min(low + 1, given - 1), place - T(low)};
  }
};

template <bool RELU, typename T>
void write_pixel(const T* x, const Affine<T>& to, int64_t C, T* out) {
#pragma omp simd
  for (int64_t c = 0; c < C; ++c) {
    const T y = to.at(x[c], c);
    out[c] = RELU && y < 0 ? T(0) : y;
  }
}

template <typename T>
void write_row(const T* x, const Affine<T>& to, const Sizes& n, const Coarser<T>& coarser, int64_t row, T* out) {
  const auto y = Coarser<T>::tap(row % n.H, n.H, coarser.h);
  const T* image = coarser.map + row / n.H * coarser.stride;
  const T *top = image + y.low * coarser.w * n.C, *bottom = image + y.high * coarser.w * n.C;
  for (int64_t i = 0; i < n.W; ++i, x += n.C, out += n.C) {
    const auto at = Coarser<T>::tap(i, n.W, coarser.w);
    const T *a = top + at.low * n.C, *b = top + at.high * n.C, *c = bottom + at.low * n.C, *d = bottom + at.high * n.C;
    const T wb = (1 - y.weight) * at.weight, wd = y.weight * at.weight;
    const T wa = (1 - y.weight) - wb, wc = y.weight - wd;
#pragma omp simd
    for (int64_t k = 0; k < n.C; ++k) {
      out[k] = to.at(x[k], k) + ((wa * a[k] + wb * b[k]) + (wc * c[k] + wd * d[k]));
    }
  }
}

template <typename T>
void apply(const Sizes& n, const T* x, const Norm<T>& norm, const Coarser<T>& coarser, bool relu, T* out, int threads) {
  const std::vector<T> numbers = norm.affine(n);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
  for (int64_t row = 0; row < n.N * n.H; ++row) {
    const Affine<T> to(numbers.data(), row / n.H, n.C);
    const T* from = x + row * n.W * n.C;
    T* result = out + row * n.W * n.C;
    if (coarser.map) {
      write_row(from, to, n, coarser, row, result);
      continue;
    }
    for (int64_t i = 0; i < n.W; ++i, from += n.C, result += n.C) {
      relu ? write_pixel<true>(from, to, n.C, result) : write_pixel<false>(from, to, n.C, result);
    }
  }
}

}  // namespace
}  // namespace m2f::group_norm

// All contiguous: x and out [N,H,W,C], which may be the same; statistics [N,G,2], mean and 1 / deviation of each group,
// is overwritten by the former and read by the latter; weight and bias [C]; coarser [N,h,w,C], whose images are stride
// apart, or null.
#define M2F_GROUP_NORM(T, SUFFIX)                                                                                    \
  M2F_EXPORT int m2f_group_norm_statistics_##SUFFIX(const T* x, double* statistics, int64_t N, int64_t H, int64_t W, \
                                                    int64_t C, int64_t G, double eps, int64_t threads) {             \
    const m2f::group_norm::Sizes sizes{N, H, W, C, G};                                                               \
    if (!sizes.valid() || threads < 1) return m2f::kBadSize;                                                         \
    m2f::group_norm::statistics(sizes, x, eps, statistics, int(threads));                                            \
    return m2f::kOk;                                                                                                 \
  }                                                                                                                  \
  M2F_EXPORT int m2f_group_norm_apply_##SUFFIX(                                                                      \
      const T* x, const double* statistics, const T* weight, const T* bias, const T* coarser, T* out, int64_t N,     \
      int64_t H, int64_t W, int64_t C, int64_t G, int64_t h, int64_t w, int64_t stride, int64_t relu,                \
      int64_t threads) {                                                                                             \
    const m2f::group_norm::Sizes sizes{N, H, W, C, G};                                                               \
    if (!sizes.valid() || threads < 1 || (coarser && (relu || h < 1 || w < 1))) return m2f::kBadSize;                \
    m2f::group_norm::apply<T>(sizes, x, {statistics, weight, bias}, {coarser, h, w, stride}, relu, out,              \
                              int(threads));                                                                         \
    return m2f::kOk;                                                                                                 \
  }

M2F_GROUP_NORM(float, f32)
M2F_GROUP_NORM(double, f64)
