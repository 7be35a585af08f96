// Multi-scale deformable attention on the CPU. See mask2former/ops/ms_deform_attn.py for what is computed.
//
// The forward pass's loops over D are plain, for the compiler to vectorise; the backward pass writes what it may also
// read, so that its vectors are ours. kD = D where it is known when compiling, else 0; then a multiple of LANES.
// Samples outside a level read nothing. They add nothing either, but a NaN or infinity there still makes NaN.
#include "ms_deform_attn.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "simd.h"

#ifdef __AVX512F__
#pragma GCC target("prefer-vector-width=256")  // forward as fast, backward a tenth faster than with 512 (Zen 4)
#endif

namespace m2f {
namespace {

using simd::LANES;
using simd::load;
using simd::store;
using simd::Vec;

// Not zero, but NaN, where a number is not finite.
template <typename T>
inline T zero_if_finite(T a) { return a * T(0); }

std::vector<Level> read_levels(const int64_t* shapes, int64_t count) {
  std::vector<Level> levels;
  int64_t start = 0;
  for (int64_t l = 0; l < count; ++l) {
    levels.push_back({shapes[2 * l], shapes[2 * l + 1], start});
    start += levels.back().h * levels.back().w;
  }
  return levels;
}

bool fits(const Sizes& n, const std::vector<Level>& levels) {
  int64_t pixels = 0;
  for (const Level& level : levels) {
    if (level.h < 0 || level.w < 0) return false;
    pixels += level.h * level.w;
  }
  return pixels == n.S;
}

// Output [D] of one query and head. locations [L,P,2] and weights [L,P] are its own; value starts at image and head.
template <typename T, int kD>
void gather(const T* value, const std::vector<Level>& levels, const T* locations, const T* weights, const Sizes& n,
            T* out) {
  const int64_t D = kD ? kD : n.D, pixel_stride = n.H * D;
  T registers[kD ? kD : 1];
  T* sum = kD ? registers : out;
  for (int64_t d = 0; d < D; ++d) sum[d] = 0;
  T poison = 0;
  Corners<T> corners;
  for (const Level& level : levels) {
    const T* pixels = value + level.start * pixel_stride;
    for (int64_t p = 0; p < n.P; ++p, locations += 2, ++weights) {
      if (level.h * level.w == 0) continue;
      const T weight = *weights;
      if (!find_corners(locations[0], locations[1], level, pixel_stride, corners)) {
        poison += zero_if_finite(locations[0]) + zero_if_finite(locations[1]) + zero_if_finite(weight);
        continue;
      }
      const T shares[4] = {weight * corners.share(0), weight * corners.share(1), weight * corners.share(2),
                           weight * corners.share(3)};
      if (corners.all_inside()) {  // nearly always
        const T* top = pixels + corners.offset[0];
        const T* bottom = pixels + corners.offset[2];
        for (int64_t d = 0; d < D; ++d) {
          sum[d] += shares[0] * top[d] + shares[1] * top[pixel_stride + d] + shares[2] * bottom[d] +
                    shares[3] * bottom[pixel_stride + d];
        }
        continue;
      }
      for (int k = 0; k < 4; ++k) {
        if (!corners.inside[k]) continue;
        const T* pixel = pixels + corners.offset[k];
        for (int64_t d = 0; d < D; ++d) sum[d] += shares[k] * pixel[d];
      }
    }
  }
  for (int64_t d = 0; d < D; ++d) out[d] = sum[d] + poison;
}

template <typename T, int kD>
void forward(const T* value, const std::vector<Level>& levels, const T* locations, const T* weights, const Sizes& n,
             T* out, int threads) {
  const int64_t samples = n.L * n.P;
#pragma omp parallel for schedule(dynamic, 64) num_threads(threads) if (threads > 1)
  for (int64_t bq = 0; bq < n.B * n.Q; ++bq) {
    const T* image = value + bq / n.Q * n.S * n.H * n.D;
    for (int64_t h = 0; h < n.H; ++h) {
      const int64_t i = bq * n.H + h;
      gather<T, kD>(image + h * n.D, levels, locations + i * samples * 2, weights + i * samples, n, out + i * n.D);
    }
  }
}

// Softmax of the first count numbers; from there to a multiple of LANES there is -infinity.
template <typename T>
void softmax(T* numbers, int64_t count) {
  T highest = numbers[0], sum = 0;
  for (int64_t i = 1; i < count; ++i) highest = std::max(highest, numbers[i]);
  for (int64_t i = 0; i < count; i += LANES<T>) {
    store(numbers + i, simd::exp_of_negative<T>(load(numbers + i) - highest));
  }
  for (int64_t i = 0; i < count; ++i) sum += numbers[i];
  for (int64_t i = 0; i < count; ++i) numbers[i] /= sum;
}

// grads, of the softmax's results, become those of its numbers.
template <typename T>
void through_softmax(const T* results, int64_t count, T* grads) {
  T mean = 0;
  for (int64_t i = 0; i < count; ++i) mean += results[i] * grads[i];
  for (int64_t i = 0; i < count; ++i) grads[i] = results[i] * (grads[i] - mean);
}

// What the projections give: reference [Q,2], offsets in pixels from there to where is sampled, logits of the weights.
template <typename T>
struct Raw {
  const T *reference, *offsets, *logits;

  // Numbers that locations and weights of one query and head take.
  static int64_t room(const Sizes& n) { return n.L * n.P * 2 + round_up(n.L * n.P, LANES<T>); }

  // Locations [L,P,2] and, behind them, weights [L,P] of image and query bq and head h.
  void locate(const std::vector<Level>& levels, const Sizes& n, int64_t bq, int64_t h, T* locations) const {
    const int64_t samples = n.L * n.P, i = bq * n.H + h;
    const T* place = reference + bq % n.Q * 2;
    for (int64_t l = 0; l < n.L; ++l) {
      const T sizes[2] = {T(levels[l].w), T(levels[l].h)};
      for (int64_t s = l * n.P * 2; s < (l + 1) * n.P * 2; ++s) {
        locations[s] = place[s % 2] + offsets[i * samples * 2 + s] / sizes[s % 2];
      }
    }
    T* weights = locations + samples * 2;
    std::fill(std::copy_n(logits + i * samples, samples, weights), locations + room(n),
              -std::numeric_limits<T>::infinity());
    softmax(weights, samples);
  }
};

// The same; locations and weights exist for one query and head at a time.
template <typename T, int kD>
void forward_raw(const T* value, const std::vector<Level>& levels, const Raw<T>& raw, const Sizes& n, T* out,
                 int threads) {
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    std::vector<T> locations(Raw<T>::room(n));
#pragma omp for schedule(dynamic, 64)
    for (int64_t bq = 0; bq < n.B * n.Q; ++bq) {
      const T* image = value + bq / n.Q * n.S * n.H * n.D;
      for (int64_t h = 0; h < n.H; ++h) {
        raw.locate(levels, n, bq, h, locations.data());
        gather<T, kD>(image + h * n.D, levels, locations.data(), locations.data() + n.L * n.P * 2, n,
                      out + (bq * n.H + h) * n.D);
      }
    }
  }
}

// Gradients of one sample. grad_value and value start at its image, level and head.
template <typename T, int kD>
inline void scatter(const T* grad, const T* value, const Level& level, const T* location, T weight, const Sizes& n,
                    T* grad_value, T* grad_location, T* grad_weight) {
  const int64_t D = kD ? kD : n.D;
  Corners<T> corners;
  if (level.h * level.w == 0) {
    *grad_weight = grad_location[0] = grad_location[1] = 0;
    return;
  }
  if (!find_corners(location[0], location[1], level, n.H * D, corners)) {
    *grad_weight = zero_if_finite(location[0]) + zero_if_finite(location[1]);
    grad_location[0] = grad_location[1] = *grad_weight + zero_if_finite(weight);
    return;
  }
  T products[4] = {0, 0, 0, 0};  // of the gradient and each corner's pixel
  Vec<T> parts[4] = {};          // of these, to be added up at once
  for (int k = 0; k < 4; ++k) {
    if (!corners.inside[k]) continue;
    const T share = weight * corners.share(k);
    const T* pixel = value + corners.offset[k];
    T* grad_pixel = grad_value + corners.offset[k];
    const int64_t whole = kD ? kD : D / LANES<T> * LANES<T>;
    for (int64_t d = 0; d < whole; d += LANES<T>) {
      const Vec<T> upper = load(grad + d);
      parts[k] += upper * load(pixel + d);
      store(grad_pixel + d, load(grad_pixel + d) + share * upper);
    }
    for (int64_t d = whole; d < D; ++d) {
      products[k] += grad[d] * pixel[d];
      grad_pixel[d] += share * grad[d];
    }
  }
  simd::add_lanes<T>(parts, products);
  *grad_weight = 0;
  for (int k = 0; k < 4; ++k) *grad_weight += corners.share(k) * products[k];
  const T along_row = corners.top * (products[1] - products[0]) + corners.bottom * (products[3] - products[2]);
  const T along_column = corners.left * (products[2] - products[0]) + corners.right * (products[3] - products[1]);
  grad_location[0] = weight * T(level.w) * along_row;
  grad_location[1] = weight * T(level.h) * along_column;
}

// Ask for the pixels of a sample before they are needed: a quarter off the time where the cache is shared.
template <typename T>
inline void fetch(const T* value, const T* grad_value, const Level& level, const T* location, const Sizes& n) {
  Corners<T> corners;
  if (!find_corners(location[0], location[1], level, n.H * n.D, corners)) return;
  for (int k = 0; k < 4; ++k) {
    if (!corners.inside[k]) continue;
    for (int64_t d = 0; d < n.D; d += int64_t(64 / sizeof(T))) {
      __builtin_prefetch(value + corners.offset[k] + d, 0);
      __builtin_prefetch(grad_value + corners.offset[k] + d, 1);
    }
  }
}

// Gradients of one query's and head's samples on some levels. value and grad_value start at image and head, the
// others at the first level's.
template <typename T, int kD>
void scatter_levels(const T* grad, const T* value, const std::vector<Level>& levels, int64_t l_begin, int64_t l_end,
                    const T* locations, const T* weights, const Sizes& n, T* grad_value, T* grad_locations,
                    T* grad_weights) {
  const int64_t pixel_stride = n.H * (kD ? kD : n.D);
  for (int64_t l = l_begin; l < l_end; ++l) {
    const int64_t first = levels[l].start * pixel_stride;
    for (int64_t s = l * n.P; s < (l + 1) * n.P; ++s) {
      fetch<T>(value + first, grad_value + first, levels[l], locations + 2 * s, n);
    }
    for (int64_t s = l * n.P; s < (l + 1) * n.P; ++s) {
      scatter<T, kD>(grad, value + first, levels[l], locations + 2 * s, weights[s], n, grad_value + first,
                     grad_locations + 2 * s, grad_weights + s);
    }
  }
}

// Into how many tasks the levels of one image and head are divided.
int64_t level_tasks(const Sizes& n, int threads) { return n.B * n.H < threads ? n.L : 1; }

// Calls body(bq, h, l_begin, l_end, scratch) for every image, query, head and range of levels; scratch has room for
// that many numbers.
// A task is an image, some heads and some levels. It alone adds to its part of grad_value, so that nothing need be
// atomic. Tasks are as large as an even share for each thread allows, since a query's numbers lie side by side: one
// task per thread reads each of them once. Only where threads outnumber B*H are levels tasks of their own.
template <typename T, typename Body>
void in_tasks(const Sizes& n, int threads, int64_t room, const Body& body) {
  int64_t head_groups = 1;
  while (head_groups < n.H && n.B * head_groups % threads) ++head_groups;
  const int64_t level_groups = level_tasks(n, threads);
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
  for (int64_t task = 0; task < n.B * head_groups * level_groups; ++task) {
    const int64_t part = task % level_groups, group = task / level_groups % head_groups;
    const int64_t b = task / (level_groups * head_groups);
    std::vector<T> scratch(room);
    for (int64_t q = 0; q < n.Q; ++q) {
      for (int64_t h = group * n.H / head_groups; h < (group + 1) * n.H / head_groups; ++h) {
        body(b * n.Q + q, h, part * n.L / level_groups, (part + 1) * n.L / level_groups, scratch.data());
      }
    }
  }
}

template <typename T, int kD>
void backward(const T* grad, const T* value, const std::vector<Level>& levels, const T* locations, const T* weights,
              const Sizes& n, T* grad_value, T* grad_locations, T* grad_weights, int threads) {
  const int64_t samples = n.L * n.P;
  in_tasks<T>(n, threads, 0, [&](int64_t bq, int64_t h, int64_t l_begin, int64_t l_end, T*) {
    const int64_t i = bq * n.H + h, first = (bq / n.Q * n.S * n.H + h) * n.D;
    scatter_levels<T, kD>(grad + i * n.D, value + first, levels, l_begin, l_end, locations + i * samples * 2,
                          weights + i * samples, n, grad_value + first, grad_locations + i * samples * 2,
                          grad_weights + i * samples);
  });
}

// The same for what the projections gave. A logit's gradient needs those of the weights on every level.
template <typename T, int kD>
void backward_raw(const T* grad, const T* value, const std::vector<Level>& levels, const Raw<T>& raw, const Sizes& n,
                  T* grad_value, T* grad_offsets, T* grad_logits, int threads) {
  const int64_t samples = n.L * n.P;
  const bool at_once = level_tasks(n, threads) == 1;
  in_tasks<T>(n, threads, Raw<T>::room(n), [&](int64_t bq, int64_t h, int64_t l_begin, int64_t l_end, T* locations) {
    const int64_t i = bq * n.H + h, first = (bq / n.Q * n.S * n.H + h) * n.D;
    const T* weights = locations + samples * 2;
    T *offsets = grad_offsets + i * samples * 2, *logits = grad_logits + i * samples;
    raw.locate(levels, n, bq, h, locations);
    scatter_levels<T, kD>(grad + i * n.D, value + first, levels, l_begin, l_end, locations, weights, n,
                          grad_value + first, offsets, logits);
    for (int64_t l = l_begin; l < l_end; ++l) {
      const T sizes[2] = {T(levels[l].w), T(levels[l].h)};
      for (int64_t s = l * n.P * 2; s < (l + 1) * n.P * 2; ++s) offsets[s] /= sizes[s % 2];
    }
    if (at_once) through_softmax(weights, samples, logits);
  });
  if (at_once) return;
#pragma omp parallel num_threads(threads)
  {
    std::vector<T> locations(Raw<T>::room(n));
#pragma omp for
    for (int64_t i = 0; i < n.B * n.Q * n.H; ++i) {
      raw.locate(levels, n, i / n.H, i % n.H, locations.data());
      through_softmax(locations.data() + samples * 2, samples, grad_logits + i * samples);
    }
  }
}

}  // namespace
}  // namespace m2f

// Shapes as in Python, all contiguous: value [B,S,H,D], shapes [L,2] (h, w), locations [B,Q,H,L,P,2],
// weights and logits [B,Q,H,L,P], reference [Q,2], offsets as locations, out and grad [B,Q,H,D]; grad_value is zero
// when called, other results are overwritten.
#define M2F_MS_DEFORM_ATTN(T, SUFFIX)                                                                                 \
  M2F_EXPORT int m2f_ms_deform_attn_forward_##SUFFIX(                                                                 \
      const T* value, const int64_t* shapes, const T* locations, const T* weights, T* out, int64_t B, int64_t S,      \
      int64_t H, int64_t D, int64_t Q, int64_t L, int64_t P, int64_t threads) {                                       \
    const m2f::Sizes n{B, S, H, D, Q, L, P};                                                                          \
    const auto levels = m2f::read_levels(shapes, L);                                                                  \
    if (!m2f::fits(n, levels)) return m2f::kBadSize;                                                                  \
    const auto run = D == 32 ? m2f::forward<T, 32> : m2f::forward<T, 0>;                                              \
    run(value, levels, locations, weights, n, out, int(threads));                                                     \
    return m2f::kOk;                                                                                                  \
  }                                                                                                                   \
  M2F_EXPORT int m2f_ms_deform_attn_raw_##SUFFIX(                                                                     \
      const T* value, const int64_t* shapes, const T* reference, const T* offsets, const T* logits, T* out,           \
      int64_t B, int64_t S, int64_t H, int64_t D, int64_t Q, int64_t L, int64_t P, int64_t threads) {                 \
    const m2f::Sizes n{B, S, H, D, Q, L, P};                                                                          \
    const auto levels = m2f::read_levels(shapes, L);                                                                  \
    if (!m2f::fits(n, levels) || L * P < 1) return m2f::kBadSize;                                                     \
    const auto run = D == 32 ? m2f::forward_raw<T, 32> : m2f::forward_raw<T, 0>;                                      \
    run(value, levels, {reference, offsets, logits}, n, out, int(threads));                                           \
    return m2f::kOk;                                                                                                  \
  }                                                                                                                   \
  M2F_EXPORT int m2f_ms_deform_attn_backward_##SUFFIX(                                                                \
      const T* grad, const T* value, const int64_t* shapes, const T* locations, const T* weights, T* grad_value,      \
      T* grad_locations, T* grad_weights, int64_t B, int64_t S, int64_t H, int64_t D, int64_t Q, int64_t L,           \
      int64_t P, int64_t threads) {                                                                                   \
    const m2f::Sizes n{B, S, H, D, Q, L, P};                                                                          \
    const auto levels = m2f::read_levels(shapes, L);                                                                  \
    if (!m2f::fits(n, levels)) return m2f::kBadSize;                                                                  \
    const auto run = D == 32 ? m2f::backward<T, 32> : m2f::backward<T, 0>;                                            \
    run(grad, value, levels, locations, weights, n, grad_value, grad_locations, grad_weights, int(threads));          \
    return m2f::kOk;                                                                                                  \
  }                                                                                                                   \
  M2F_EXPORT int m2f_ms_deform_attn_raw_backward_##SUFFIX(                                                            \
      const T* grad, const T* value, const int64_t* shapes, const T* reference, const T* offsets, const T* logits,    \
      T* grad_value, T* grad_offsets, T* grad_logits, int64_t B, int64_t S, int64_t H, int64_t D, int64_t Q,          \
      int64_t L, int64_t P, int64_t threads) {                                                                        \
    const m2f::Sizes n{B, S, H, D, Q, L, P};                                                                          \
    const auto levels = m2f::read_levels(shapes, L);                                                                  \
    if (!m2f::fits(n, levels) || L * P < 1) return m2f::kBadSize;                                                     \
    const auto run = D == 32 ? m2f::backward_raw<T, 32> : m2f::backward_raw<T, 0>;                                    \
    run(grad, value, levels, {reference, offsets, logits}, n, grad_value, grad_offsets, grad_logits, int(threads));   \
    return m2f::kOk;                                                                                                  \
  }

M2F_MS_DEFORM_ATTN(float, f32)
M2F_MS_DEFORM_ATTN(double, f64)
