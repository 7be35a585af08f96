// Sigmoid and softplus of logits, both from one exponential.
#pragma once

#include "simd.h"

namespace m2f {

// Given e = exp(-|x|).
template <typename T>
inline simd::Vec<T> sigmoid(simd::Vec<T> x, simd::Vec<T> e) {
  return (x < 0 ? e : simd::broadcast<T>(1)) / (e + T(1));
}

template <typename T>
inline simd::Vec<T> sigmoid(simd::Vec<T> x) {
  return sigmoid<T>(x, simd::exp_of_negative<T>(x < 0 ? x : -x));
}

template <typename T>
struct Logistic {
  simd::Vec<T> probability;  // sigmoid(x)
  simd::Vec<T> beyond;       // softplus(x) - max(x, 0) = log(1 + exp(-|x|))
};

// NaN gives NaN. log(1 + e) = 2 artanh(s), s = e / (2 + e) <= 1/3, keeps all digits of a small e.
template <typename T>
inline Logistic<T> logistic(simd::Vec<T> x) {
  using namespace simd;
  constexpr int terms = sizeof(T) == 4 ? 7 : 17;  // 9^-terms / (2 terms + 1) is below the last digit
  const Vec<T> e = exp_of_negative<T>(x < 0 ? x : -x);
  const Vec<T> s = e / (e + T(2)), square = s * s;
  Vec<T> series = broadcast<T>(T(1) / (2 * terms + 1));
  for (int i = terms - 1; i >= 0; --i) series = series * square + T(1) / (2 * i + 1);
  return {sigmoid<T>(x, e), T(2) * s * series};
}

}  // namespace m2f
