// Gradients of group normalisation, see group_norm.cpp: one pass for the sums, and one for the map.
//
// With y = w (x - mean) * rate + b and the result's gradient g, averages over a group's values:
//   dx = rate (w g - average(w g) - (x - mean) rate * average(w g (x - mean) rate))
#include "common.h"
#include "group_norm.h"

namespace m2f::group_norm {
namespace {

template <typename T>
struct Pass {
  Sizes n;
  const T *grad, *x;  // [N,H,W,C]
  Norm<T> norm;
  bool relu;  // grad is that of max(0, y), and counts where y > 0
};

template <bool RELU, typename T>
inline T passed(T grad, T x, const Affine<T>& to, int64_t c) {
  return RELU && to.at(x, c) <= 0 ? T(0) : grad;
}

// Sum over some pixels of g and g * (x - middle).
template <bool RELU, typename T>
void add_up(const T* grad, const T* x, int64_t pixels, int64_t C, const Affine<T>& to, T* sums, T* products) {
  std::fill_n(sums, C, T(0));
  std::fill_n(products, C, T(0));
  for (int64_t p = 0; p < pixels; ++p, x += C, grad += C) {
#pragma omp simd
    for (int64_t c = 0; c < C; ++c) {
      const T g = passed<RELU>(grad[c], x[c], to, c);
      sums[c] += g;
      products[c] += g * (x[c] - to.middle[c]);
    }
  }
}

// The same of an image's part, to total [2,C]; space [2,C].
template <typename T>
void add_part(const Pass<T>& pass, const Affine<T>& to, int64_t begin, int64_t end, T* space, double* total) {
  const int64_t C = pass.n.C, step = pass.n.template block<T>();
  for (int64_t p = begin; p < end; p += step) {
    const T *grad = pass.grad + p * C, *x = pass.x + p * C;
    const int64_t count = std::min(step, end - p);
    if (pass.relu) {
      add_up<true>(grad, x, count, C, to, space, space + C);
    } else {
      add_up<false>(grad, x, count, C, to, space, space + C);
    }
    for (int64_t i = 0; i < 2 * C; ++i) total[i] += space[i];
  }
}

// [N,2,C]: sums over all pixels of g and g * (x - mean) * rate, the gradients of bias and weight.
template <typename T>
std::vector<double> add_all(const Pass<T>& pass, const std::vector<T>& numbers, int threads) {
  const Sizes& n = pass.n;
  const int64_t parts = n.parts<T>(), size = 2 * n.C;
  std::vector<double> of_parts(n.N * parts * size), totals(n.N * size);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    std::vector<T> space(size);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < n.N * parts; ++i) {
      const int64_t image = i / parts, part = i % parts, from = image * n.P();
      const Affine<T> to(numbers.data(), image, n.C);
      add_part(pass, to, from + n.first<T>(part), from + n.first<T>(part + 1), space.data(), &of_parts[i * size]);
    }
  }
  for (int64_t image = 0; image < n.N; ++image) {
    double* total = &totals[image * size];
    for (int64_t part = 0; part < parts; ++part) {
      for (int64_t i = 0; i < size; ++i) total[i] += of_parts[(image * parts + part) * size + i];
    }
    const Affine<T> to(numbers.data(), image, n.C);
    for (int64_t c = 0; c < n.C; ++c) {
      const double rest = to.middle[c] - pass.norm.mean(n, image, c);
      total[n.C + c] = (total[n.C + c] + rest * total[c]) * pass.norm.rate(n, image, c);
    }
  }
  return totals;
}

// dx = scale * g + slope * (x - middle) + offset: slope and offset [N,2,C]
template <typename T>
std::vector<T> slopes(const Pass<T>& pass, const std::vector<T>& numbers, const std::vector<double>& totals) {
  const Sizes& n = pass.n;
  const int64_t D = n.C / n.G;
  std::vector<T> result(n.N * 2 * n.C);
  for (int64_t i = 0; i < n.N * n.G; ++i) {
    const int64_t image = i / n.G, first = i % n.G * D;
    const double *total = &totals[image * 2 * n.C], rate = pass.norm.rate(n, image, first);
    const Affine<T> to(numbers.data(), image, n.C);
    double sum = 0, product = 0;
    for (int64_t c = first; c < first + D; ++c) {
      sum += pass.norm.weight[c] * total[c];
      product += pass.norm.weight[c] * total[n.C + c];
    }
    const double size = double(n.P() * D), slope = -rate * rate * product / size;
    const double rest = to.middle[first] - pass.norm.mean(n, image, first);
    T* of_image = &result[image * 2 * n.C];
    std::fill_n(of_image + first, D, T(slope));
    std::fill_n(of_image + n.C + first, D, T(slope * rest - rate * sum / size));
  }
  return result;
}

template <bool RELU, typename T>
void write_row(const Pass<T>& pass, int64_t row, const Affine<T>& to, const T* slope, T* out) {
  const int64_t C = pass.n.C, W = pass.n.W;
  const T *grad = pass.grad + row * W * C, *x = pass.x + row * W * C, *offset = slope + C;
  out += row * W * C;
  for (int64_t i = 0; i < W; ++i, grad += C, x += C, out += C) {
#pragma omp simd
    for (int64_t c = 0; c < C; ++c) {
      const T g = passed<RELU>(grad[c], x[c], to, c);
      out[c] = to.scale[c] * g + (slope[c] * (x[c] - to.middle[c]) + offset[c]);
    }
  }
}

template <typename T>
void backward(const Pass<T>& pass, T* grad_x, T* grad_weight, T* grad_bias, int threads) {
  const Sizes& n = pass.n;
  const std::vector<T> numbers = pass.norm.affine(n);
  const std::vector<double> totals = add_all(pass, numbers, threads);
  for (int64_t c = 0; c < n.C; ++c) {
    double sum = 0, product = 0;
    for (int64_t image = 0; image < n.N; ++image) {
      sum += totals[image * 2 * n.C + c];
      product += totals[(image * 2 + 1) * n.C + c];
    }
    grad_bias[c] = T(sum);
    grad_weight[c] = T(product);
  }
  const std::vector<T> all = slopes(pass, numbers, totals);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
  for (int64_t row = 0; row < n.N * n.H; ++row) {
    const int64_t image = row / n.H;
    const Affine<T> to(numbers.data(), image, n.C);
    const T* slope = &all[image * 2 * n.C];
    pass.relu ? write_row<true>(pass, row, to, slope, grad_x) : write_row<false>(pass, row, to, slope, grad_x);
  }
}

}  // namespace
}  // namespace m2f::group_norm

// All contiguous: grad, x and grad_x [N,H,W,C], where grad_x may be grad; statistics [N,G,2]; weight, bias and their
// gradients [C]. The gradients are overwritten.
#define M2F_GROUP_NORM_BACKWARD(T, SUFFIX)                                                                        \
  M2F_EXPORT int m2f_group_norm_backward_##SUFFIX(                                                                \
      const T* grad, const T* x, const double* statistics, const T* weight, const T* bias, T* grad_x,             \
      T* grad_weight, T* grad_bias, int64_t N, int64_t H, int64_t W, int64_t C, int64_t G, int64_t relu,          \
      int64_t threads) {                                                                                          \
    const m2f::group_norm::Pass<T> pass{{N, H, W, C, G}, grad, x, {statistics, weight, bias}, relu != 0};         \
    if (!pass.n.valid() || threads < 1) return m2f::kBadSize;                                                     \
    m2f::group_norm::backward(pass, grad_x, grad_weight, grad_bias, int(threads));                                \
    return m2f::kOk;                                                                                              \
  }

M2F_GROUP_NORM_BACKWARD(float, f32)
M2F_GROUP_NORM_BACKWARD(double, f64)
