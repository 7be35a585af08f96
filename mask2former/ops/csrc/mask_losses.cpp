// Sums over the samples of mask logits on the CPU. See mask2former/ops/mask_losses.py for what is computed.
#include <algorithm>
#include <vector>

#include "common.h"
#include "logistic.h"

namespace m2f::mask_losses {
namespace {

using simd::broadcast;
using simd::LANES;
using simd::load;
using simd::store;
using simd::Vec;

template <typename T>
inline T total(Vec<T> v) {
  T sum = 0;
  for (int l = 0; l < LANES<T>; ++l) sum += v[l];
  return sum;
}

// The first `count` of a vector, the others as given.
template <typename T>
inline Vec<T> load_some(const T* from, int64_t count, T others) {
  Vec<T> v = broadcast<T>(others);
  std::memcpy(&v, from, count * sizeof(T));
  return v;
}

// What a sample costs outside of a target, and what more it costs inside.
enum Cost : int64_t { kCrossEntropy = 0, kFocal = 1 };

template <typename T, Cost COST>
inline void sample_cost(Vec<T> x, const Logistic<T>& of, Vec<T>* outside, Vec<T>* beyond) {
  const Vec<T> softplus = (x < 0 ? Vec<T>{} : x) + of.beyond;
  if (COST == kCrossEntropy) {
    *outside = softplus;
    *beyond = -x;
  } else {
    const Vec<T> s = of.probability, missed = T(1) - s;
    *outside = T(0.75) * s * s * softplus;
    *beyond = T(0.25) * missed * missed * ((x < 0 ? -x : Vec<T>{}) + of.beyond) - *outside;
  }
}

// beyond [P] and probability [P] of logits [P]; sums[0] += their cost outside of targets, sums[1] += probability.
template <typename T, Cost COST>
void add_samples(const T* logits, int64_t P, T* beyond, T* probability, T* sums) {
  constexpr int64_t L = LANES<T>;
  Vec<T> costs{}, all{};
  for (int64_t p = 0; p < P; p += L) {
    const int64_t count = std::min(L, P - p);
    const Vec<T> x = count == L ? load(logits + p) : load_some(logits + p, count, T(0));
    Logistic<T> of = logistic<T>(x);
    Vec<T> outside, inside;
    sample_cost<T, COST>(x, of, &outside, &inside);
    for (int64_t l = count; l < L; ++l) outside[l] = of.probability[l] = 0;
    costs += outside;
    all += of.probability;
    store(beyond + p, inside);
    store(probability + p, of.probability);
  }
  sums[0] += total<T>(costs);
  sums[1] += total<T>(all);
}

// beyond_sums [COUNT] and probability_sums [COUNT] += products of a query's samples with COUNT targets' labels.
template <typename T, int COUNT>
void add_products(const T* beyond, const T* probability, const T* labels, int64_t stride, int64_t P, T* beyond_sums,
                  T* probability_sums) {
  constexpr int64_t L = LANES<T>;
  Vec<T> beyond_parts[COUNT] = {}, probability_parts[COUNT] = {};
  int64_t p = 0;
  for (; p + L <= P; p += L) {
    const Vec<T> b = load(beyond + p), s = load(probability + p);
    for (int n = 0; n < COUNT; ++n) {
      const Vec<T> y = load(labels + n * stride + p);
      beyond_parts[n] += b * y;
      probability_parts[n] += s * y;
    }
  }
  for (int n = 0; n < COUNT; ++n) {
    beyond_sums[n] += total<T>(beyond_parts[n]);
    probability_sums[n] += total<T>(probability_parts[n]);
    for (int64_t q = p; q < P; ++q) {
      beyond_sums[n] += beyond[q] * labels[n * stride + q];
      probability_sums[n] += probability[q] * labels[n * stride + q];
    }
  }
}

// sums [R,2+2N] += of each query's logits [R,P] what add_samples says, and the products of beyond and of probability
// with each target's labels [N,P], whose rows are `stride` apart.
template <typename T, Cost COST>
void add_pair_sums(const T* logits, const T* labels, T* sums, int64_t R, int64_t P, int64_t N, int64_t stride,
                   int threads) {
  constexpr int TARGETS = 4;  // sums of so many are in registers
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    std::vector<T> beyond(P + LANES<T>), probability(P + LANES<T>);
#pragma omp for schedule(static)
    for (int64_t r = 0; r < R; ++r) {
      T *of_row = sums + r * (2 + 2 * N), *with_beyond = of_row + 2, *with_probability = of_row + 2 + N;
      add_samples<T, COST>(logits + r * P, P, beyond.data(), probability.data(), of_row);
      int64_t n = 0;
      for (; n + TARGETS <= N; n += TARGETS) {
        add_products<T, TARGETS>(beyond.data(), probability.data(), labels + n * stride, stride, P, with_beyond + n,
                                 with_probability + n);
      }
      for (; n < N; ++n) {
        add_products<T, 1>(beyond.data(), probability.data(), labels + n * stride, stride, P, with_beyond + n,
                           with_probability + n);
      }
    }
  }
}

// sums [3]: cross-entropy, probability times label, probability; of one mask's logits and labels [P].
template <typename T>
void mask_sums(const T* logits, const T* labels, T* sums, int64_t P) {
  constexpr int64_t L = LANES<T>, BLOCK = 64 * LANES<T>;  // a sum of few numbers loses fewer digits
  double totals[3] = {};
  for (int64_t start = 0; start < P; start += BLOCK) {
    Vec<T> entropy{}, overlap{}, all{};
    for (int64_t p = start; p < std::min(P, start + BLOCK); p += L) {
      const int64_t count = std::min(L, P - p);
      const Vec<T> x = count == L ? load(logits + p) : load_some(logits + p, count, T(0));
      const Vec<T> y = count == L ? load(labels + p) : load_some(labels + p, count, T(0));
      Logistic<T> of = logistic<T>(x);
      for (int64_t l = count; l < L; ++l) of.probability[l] = of.beyond[l] = 0;
      // softplus(x) - x y without the difference of large numbers
      entropy += (x < 0 ? -x * y : x * (T(1) - y)) + of.beyond;
      overlap += of.probability * y;
      all += of.probability;
    }
    totals[0] += total<T>(entropy);
    totals[1] += total<T>(overlap);
    totals[2] += total<T>(all);
  }
  for (int i = 0; i < 3; ++i) sums[i] = T(totals[i]);
}

// grad [P] of the logits, given those of the sums, weights [3].
template <typename T>
void mask_sums_grad(const T* logits, const T* labels, const T* weights, T* grad, int64_t P) {
  constexpr int64_t L = LANES<T>;
  for (int64_t p = 0; p < P; p += L) {
    const int64_t count = std::min(L, P - p);
    const Vec<T> x = count == L ? load(logits + p) : load_some(logits + p, count, T(0));
    const Vec<T> y = count == L ? load(labels + p) : load_some(labels + p, count, T(0));
    const Vec<T> s = logistic<T>(x).probability;
    const Vec<T> g = weights[0] * (s - y) + (weights[1] * y + weights[2]) * (s * (T(1) - s));
    if (count == L) {
      store(grad + p, g);
    } else {
      std::memcpy(grad + p, &g, count * sizeof(T));
    }
  }
}

}  // namespace
}  // namespace m2f::mask_losses

// All contiguous, but for labels of add_pair_sums. sums of add_pair_sums are added to, all else is overwritten.
#define M2F_MASK_LOSSES(T, SUFFIX)                                                                               \
  M2F_EXPORT int m2f_add_pair_sums_##SUFFIX(const T* logits, const T* labels, T* sums, int64_t R, int64_t P,     \
                                            int64_t N, int64_t stride, int64_t cost, int64_t threads) {          \
    using namespace m2f::mask_losses;                                                                            \
    if (std::min({R, P, N, stride}) < 0 || cost < kCrossEntropy || cost > kFocal || threads < 1) {               \
      return m2f::kBadSize;                                                                                      \
    }                                                                                                            \
    const auto add = cost == kFocal ? add_pair_sums<T, kFocal> : add_pair_sums<T, kCrossEntropy>;                \
    add(logits, labels, sums, R, P, N, stride, int(threads));                                                    \
    return m2f::kOk;                                                                                             \
  }                                                                                                              \
  M2F_EXPORT int m2f_mask_sums_forward_##SUFFIX(const T* logits, const T* labels, T* sums, int64_t N, int64_t P, \
                                                int64_t threads) {                                               \
    if (std::min(N, P) < 0 || threads < 1) return m2f::kBadSize;                                                 \
    _Pragma("omp parallel for num_threads(threads) if (threads > 1)")                                            \
    for (int64_t n = 0; n < N; ++n) {                                                                            \
      m2f::mask_losses::mask_sums(logits + n * P, labels + n * P, sums + n * 3, P);                              \
    }                                                                                                            \
    return m2f::kOk;                                                                                             \
  }                                                                                                              \
  M2F_EXPORT int m2f_mask_sums_backward_##SUFFIX(const T* logits, const T* labels, const T* weights, T* grad,    \
                                                 int64_t N, int64_t P, int64_t threads) {                        \
    if (std::min(N, P) < 0 || threads < 1) return m2f::kBadSize;                                                 \
    _Pragma("omp parallel for num_threads(threads) if (threads > 1)")                                            \
    for (int64_t n = 0; n < N; ++n) {                                                                            \
      m2f::mask_losses::mask_sums_grad(logits + n * P, labels + n * P, weights + n * 3, grad + n * P, P);        \
    }                                                                                                            \
    return m2f::kOk;                                                                                             \
  }

M2F_MASK_LOSSES(float, f32)
M2F_MASK_LOSSES(double, f64)
