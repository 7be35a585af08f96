// Sigmoid and softplus of a logit from one exponential.
#pragma once

#include "neighborhood_attn_simd.h"

namespace m2f {

template <typename T>
struct Logistic {
  neighborhood::Vec<T> probability;  // sigmoid(x)
  neighborhood::Vec<T> beyond;       // softplus(x) - max(x, 0) = log(1 + exp(-|x|))
};

// NaN gives NaN. log(1 + e) = 2 artanh(s), s = e / (2 + e) <= 1/3, keeps all digits of a small e.
template <typename T>
inline Logistic<T> logistic(neighborhood::Vec<T> x) {
  using namespace neighborhood;
  constexpr int terms = sizeof(T) == 4 ? 7 : 17;  // 9^-terms / (2 terms + 1) is below the last digit
  const Vec<T> e = exp_of_negative<T>(x < 0 ? x : -x);
  const Vec<T> s = e / (e + T(2)), square = s * s;
  Vec<T> series = broadcast<T>(T(1) / (2 * terms + 1));
  for (int i = terms - 1; i >= 0; --i) series = series * square + T(1) / (2 * i + 1);
  return {(x < 0 ? e : broadcast<T>(1)) / (e + T(1)), T(2) * s * series};
}

}  // namespace m2f
