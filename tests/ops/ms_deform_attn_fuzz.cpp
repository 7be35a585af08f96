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
                                                      int64_t, int64_t);                                              \
  extern "C" int m2f_ms_deform_attn_raw_##SUFFIX(const T*, const int64_t*, const T*, const T*, const T*, T*, int64_t, \
                                                 int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t);      \
  extern "C" int m2f_ms_deform_attn_raw_backward_##SUFFIX(                                                            \
      const T*, const T*, const int64_t*, const T*, const T*, const T*, T*, T*, T*, int64_t, int64_t, int64_t,        \
      int64_t, int64_t, int64_t, int64_t, int64_t);                                                                   \
  extern "C" int m2f_mask_scores_##SUFFIX(const T*, const int64_t*, const T*, const int64_t*, const T*,               \
                                          const int64_t*, const T*, const int64_t*, const T*, const T*, T*, int64_t,  \
                                          int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t,     \
                                          int64_t, int64_t, int64_t, int64_t);
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

template <typename T, typename Forward, typename Backward, typename Raw, typename RawBackward>
int run_attention(Forward forward, Backward backward, Raw raw, RawBackward raw_backward) {
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
  const auto reference = numbers<T>(2 * Q, true);
  std::vector<T> out(grad.size()), grad_value(value.size()), grad_locations(locations.size()),
      grad_weights(weights.size());
  return forward(value.data(), shapes.data(), locations.data(), weights.data(), out.data(), B, S, H, D, Q, L, P,
                 threads) ||
         (L * P > 0 && raw(value.data(), shapes.data(), reference.data(), locations.data(), weights.data(), out.data(),
                           B, S, H, D, Q, L, P, threads)) ||
         (L * P > 0 &&
          raw_backward(grad.data(), value.data(), shapes.data(), reference.data(), locations.data(), weights.data(),
                       grad_value.data(), grad_locations.data(), grad_weights.data(), B, S, H, D, Q, L, P, threads)) ||
         backward(grad.data(), value.data(), shapes.data(), locations.data(), weights.data(), grad_value.data(),
                  grad_locations.data(), grad_weights.data(), B, S, H, D, Q, L, P, threads);
}

std::vector<int64_t> indices(int64_t count, int64_t end) {
  std::vector<int64_t> out(count);
  for (int64_t& x : out) x = below(end);
  return out;
}

// Maps [Q,h,w] -> [Q,H,W] -> classes [K,height,width], as in csrc/mask_scores.cpp.
template <typename T, typename Scores>
int run_scores(Scores scores) {
  const int64_t Q = 1 + below(40), h = 1 + below(7), w = 1 + below(7), H = 1 + below(20), W = 1 + below(40);
  const int64_t height = 1 + below(20), width = 1 + below(70), K = 1 + below(14);
  const int64_t taps[] = {1 + below(4), 1 + below(4), 1 + below(2), 1 + below(2)};
  const auto logits = numbers<T>(Q * h * w, true), classes = numbers<T>(Q * K, false);
  const auto rows = indices(H * taps[0], h), columns = indices(W * taps[1], w);
  const auto last_rows = indices(height * taps[2], H), last_columns = indices(width * taps[3], W);
  const auto a = numbers<T>(rows.size(), false), b = numbers<T>(columns.size(), false);
  const auto c = numbers<T>(last_rows.size(), false), d = numbers<T>(last_columns.size(), false);
  std::vector<T> out(K * height * width);
  return scores(logits.data(), rows.data(), a.data(), columns.data(), b.data(), last_rows.data(), c.data(),
                last_columns.data(), d.data(), classes.data(), out.data(), Q, h, w, H, W, taps[0], taps[1], height,
                width, taps[2], taps[3], K, 1 + below(3));
}

template <typename T, typename Forward, typename Backward, typename Raw, typename RawBackward, typename Scores>
int run(Forward forward, Backward backward, Raw raw, RawBackward raw_backward, Scores scores) {
  return run_attention<T>(forward, backward, raw, raw_backward) || run_scores<T>(scores);
}

int main() {
  const int cases = 3000;
  for (int i = 0; i < cases; ++i) {
    if (run<float>(m2f_ms_deform_attn_forward_f32, m2f_ms_deform_attn_backward_f32, m2f_ms_deform_attn_raw_f32,
                   m2f_ms_deform_attn_raw_backward_f32, m2f_mask_scores_f32)) {
      return 1;
    }
    if (run<double>(m2f_ms_deform_attn_forward_f64, m2f_ms_deform_attn_backward_f64, m2f_ms_deform_attn_raw_f64,
                    m2f_ms_deform_attn_raw_backward_f64, m2f_mask_scores_f64)) {
      return 1;
    }
  }
  std::printf("%d\n", 2 * cases);
}
