// Vectors of 32 bytes in the compilers' own notation: AVX where there is AVX, several narrower registers elsewhere.
#pragma once

#include <cstdint>
#include <cstring>

// Without AVX such vectors are passed in another way. That concerns objects of several compilers, which nobody mixes.
#pragma GCC diagnostic ignored "-Wpsabi"

namespace m2f::simd {

template <typename T>
struct Simd;

template <>
struct Simd<float> {
  typedef float V __attribute__((vector_size(32)));
  typedef int32_t I __attribute__((vector_size(32)));
  // exp: 2^n * p(r); 1.5 * 2^23 added to a number leaves its rounded value in the low bits
  static constexpr float lowest = -87.0f, magic = 12582912.0f, ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
  static constexpr int terms = 7, bias = 127, mantissa = 23;
};

template <>
struct Simd<double> {
  typedef double V __attribute__((vector_size(32)));
  typedef int64_t I __attribute__((vector_size(32)));
  static constexpr double lowest = -708.0, magic = 6755399441055744.0;
  static constexpr double ln2_high = 6.93145751953125e-1, ln2_low = 1.42860682030941723212e-6;
  static constexpr int terms = 13, bias = 1023, mantissa = 52;
};

template <typename T>
using Vec = typename Simd<T>::V;
template <typename T>
using Index = typename Simd<T>::I;
template <typename T>
constexpr int LANES = 32 / sizeof(T);

template <typename T>
inline Vec<T> load(const T* from) {
  Vec<T> v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <typename T>
inline void store(T* to, Vec<T> v) {
  std::memcpy(to, &v, sizeof v);
}

template <typename T>
inline Vec<T> broadcast(T x) {
  Vec<T> v;
  for (int l = 0; l < LANES<T>; ++l) v[l] = x;
  return v;
}

template <typename T>
inline Vec<T> permute(Vec<T> v, Index<T> index) {
  return __builtin_shuffle(v, index);
}

// Vectors 2i and 2i + 1 become the halves of vectors i and i + L/2 interleaved. log2(L) times this is a transposition.
template <typename T>
inline void interleave(Vec<T>* v) {
  constexpr int L = LANES<T>;
  Index<T> low, high;
  for (int l = 0; l < L; ++l) {
    low[l] = l / 2 + l % 2 * L;
    high[l] = low[l] + L / 2;
  }
  Vec<T> out[L];
  for (int i = 0; i < L / 2; ++i) {
    out[2 * i] = __builtin_shuffle(v[i], v[i + L / 2], low);
    out[2 * i + 1] = __builtin_shuffle(v[i], v[i + L / 2], high);
  }
  for (int i = 0; i < L; ++i) v[i] = out[i];
}

// Lane l of vector i changes places with lane i of vector l.
template <typename T>
inline void transpose(Vec<T>* v) {
  for (int step = 1; step < LANES<T>; step *= 2) interleave<T>(v);
}

// to [L,L], rows to_stride apart, is the transposed of from [L,L], rows from_stride apart.
template <typename T>
inline void transpose(const T* from, int64_t from_stride, T* to, int64_t to_stride) {
  Vec<T> v[LANES<T>];
  for (int i = 0; i < LANES<T>; ++i) v[i] = load(from + i * from_stride);
  transpose<T>(v);
  for (int i = 0; i < LANES<T>; ++i) store(to + i * to_stride, v[i]);
}

// To each of four numbers all lanes of its vector.
template <typename T>
inline void add_lanes(const Vec<T>* v, T* sums) {
  constexpr int L = LANES<T>;
  Index<T> low, high, left, right;
  for (int l = 0; l < L; ++l) {
    low[l] = l / 2 + l % 2 * L;
    high[l] = low[l] + L / 2;
    left[l] = l / 4 * 2 + l % 2 + l / 2 % 2 * L;
    right[l] = left[l] + L / 2;
  }
  const Vec<T> a = __builtin_shuffle(v[0], v[1], low) + __builtin_shuffle(v[0], v[1], high);  // lanes of 0, 1, 0, ...
  const Vec<T> b = __builtin_shuffle(v[2], v[3], low) + __builtin_shuffle(v[2], v[3], high);  // and of 2, 3, 2, ...
  const Vec<T> c = __builtin_shuffle(a, b, left) + __builtin_shuffle(a, b, right);  // of 0, 1, 2, 3, 0, ...
  for (int l = 0; l < L; ++l) sums[l % 4] += c[l];
}

template <typename T>
constexpr T reciprocal_factorial(int n) { return n == 0 ? T(1) : reciprocal_factorial<T>(n - 1) / T(n); }

// exp(x) for x <= 0 or little more, to about one unit in the last place; exp(-inf) is 0, exp(NaN) is NaN.
template <typename T>
inline Vec<T> exp_of_negative(Vec<T> x) {
  using S = Simd<T>;
  const Vec<T> lowest = broadcast<T>(S::lowest);
  const Vec<T> y = x < lowest ? lowest : x;
  const Vec<T> shifted = y * T(1.44269504088896340736) + broadcast<T>(S::magic);
  const Vec<T> n = shifted - broadcast<T>(S::magic);
  const Vec<T> r = (y - n * S::ln2_high) - n * S::ln2_low;  // |r| <= ln(2) / 2
  Vec<T> p = broadcast<T>(reciprocal_factorial<T>(S::terms));
  for (int i = S::terms - 1; i >= 0; --i) p = p * r + reciprocal_factorial<T>(i);  // Taylor's series
  Index<T> bits, zero;
  std::memcpy(&bits, &shifted, sizeof bits);
  const Vec<T> magic = broadcast<T>(S::magic);
  std::memcpy(&zero, &magic, sizeof zero);
  bits = (bits - zero + S::bias) << S::mantissa;
  Vec<T> power;
  std::memcpy(&power, &bits, sizeof power);
  return x < lowest ? Vec<T>{} : p * power;
}

}  // namespace m2f::simd
