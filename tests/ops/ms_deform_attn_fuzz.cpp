// Random and hostile inputs for the CPU kernels, every array of exactly its size, for the sanitizers to watch.
// Prints how many cases ran.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <random>
#include <vector>

#define DECLARE(T, SUFFIX)                                                                                            \
  extern "C" int m2f_ms_deform_attn_forward_##SUFFIX(const T*, const int64_t*, const T*, const T*, T*, int64_t,       \
                                                     int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t);  \
  extern "C" int m2f_ms_deform_attn_backward_##SUFFIX(const T*, const T*, const int64_t*, const T*, const T*, T*, T*, \
                                                      T*, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t,       \
                                                      int64_t, int64_t);
DECLARE(float, f32)
DECLARE(double, f64)

std::mt19937 generator(0);
int64_t below(int64_t n) { return generator() % n; }

template <typename T>
std::vector<T> numbers(int64_t count, bool locations) {
  const T limits[] = {std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::infinity(),
                      -std::numeric_limits<T>::infinity(), std::numeric_limits<T>::max(),
                      std::numeric_limits<T>::lowest(), std::numeric_limits<T>::denorm_min(), T(9.3e18), T(-3e9),
                      T(0), T(1), std::nextafter(T(1), T(2)), std::nextafter(T(0), T(-1))};
  const T spreads[] = {1, 1, 1.5, 100};
  const bool hostile = below(2);
  std::vector<T> out(count);
  for (T& x : out) {
    x = T(below(1 << 20)) / (1 << 20);
    if (locations) x = (x - T(0.5)) * spreads[below(4)] + T(0.5);
    if (hostile && below(8) == 0) x = limits[below(std::size(limits))];
  }
  return out;
}

template <typename T, typename Forward, typename Backward>
int run(Forward forward, Backward backward) {
  const int64_t B = below(3), H = below(4), D = below(3) ? below(20) : 32, Q = below(8), L = below(4), P = below(4);
  const int64_t threads = 1 + below(4);
  std::vector<int64_t> shapes(2 * L);
  int64_t S = 0;
  for (int64_t l = 0; l < L; ++l) {
    shapes[2 * l] = below(6);
    shapes[2 * l + 1] = below(6);
    S += shapes[2 * l] * shapes[2 * l + 1];
  }
  const auto value = numbers<T>(B * S * H * D, false), weights = numbers<T>(B * Q * H * L * P, false);
  const auto locations = numbers<T>(2 * weights.size(), true), grad = numbers<T>(B * Q * H * D, false);
  std::vector<T> out(grad.size()), grad_value(value.size()), grad_locations(locations.size()),
      grad_weights(weights.size());
  return forward(value.data(), shapes.data(), locations.data(), weights.data(), out.data(), B, S, H, D, Q, L, P,
                 threads) ||
         backward(grad.data(), value.data(), shapes.data(), locations.data(), weights.data(), grad_value.data(),
                  grad_locations.data(), grad_weights.data(), B, S, H, D, Q, L, P, threads);
}

int main() {
  const int cases = 3000;
  for (int i = 0; i < cases; ++i) {
    if (run<float>(m2f_ms_deform_attn_forward_f32, m2f_ms_deform_attn_backward_f32)) return 1;
    if (run<double>(m2f_ms_deform_attn_forward_f64, m2f_ms_deform_attn_backward_f64)) return 1;
  }
  std::printf("%d\n", 2 * cases);
}
