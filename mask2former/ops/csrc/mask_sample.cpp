// Bilinear values of masks stored as windows of pixels, on the CPU. See mask2former/ops/point_sample.py.
#include <algorithm>
#include <cmath>

#include "common.h"

namespace m2f::mask_sample {
namespace {

// N masks, P points (x, y), S stored pixels

// As in Python: where the window starts among the pixels, its corner, its size, and the value inside the mask.
struct Window {
  int64_t start, x0, y0, width, height, value;

  bool within(int64_t S) const {
    if (width == 0 || height == 0) return true;
    if (start < 0 || width < 0 || height < 0 || width > S || height > S / width) return false;
    return start <= S - width * height;
  }
};

template <typename Pixel>
class Mask {
 public:
  Mask(const Pixel* pixels, const Window& window) : pixels_(pixels), w_(window) {}

  bool inside(int64_t x, int64_t y) const {
    const int64_t across = x - w_.x0, down = y - w_.y0;
    if (across < 0 || down < 0 || across >= w_.width || down >= w_.height) return false;
    return int64_t(pixels_[w_.start + down * w_.width + across]) == w_.value;
  }

 private:
  const Pixel* pixels_;
  const Window& w_;
};

// out [P] at points [P,2] over the whole map of size H W.
template <typename T, typename Pixel>
void sample(const Mask<Pixel>& mask, const T* points, T* out, int64_t P, int64_t H, int64_t W) {
  const T beyond_x = T(W), beyond_y = T(H);
  for (int64_t p = 0; p < P; ++p) {
    const T x = points[2 * p] * T(W) - T(0.5), y = points[2 * p + 1] * T(H) - T(0.5);
    out[p] = 0;
    if (!(x > -1 && y > -1 && x < beyond_x && y < beyond_y)) continue;  // nor is NaN a place
    const T left = std::floor(x), top = std::floor(y);
    const T from_left = x - left, to_right = left + 1 - x, from_top = y - top, to_bottom = top + 1 - y;
    const int64_t column = int64_t(left), row = int64_t(top);
    out[p] = (mask.inside(column, row) ? to_right * to_bottom : T(0)) +
             (mask.inside(column, row + 1) ? to_right * from_top : T(0)) +
             (mask.inside(column + 1, row) ? from_left * to_bottom : T(0)) +
             (mask.inside(column + 1, row + 1) ? from_left * from_top : T(0));
  }
}

template <typename T, typename Pixel>
void sample_all(const void* pixels, const Window* windows, const T* points, T* out, int64_t N, int64_t P, int64_t H,
                int64_t W, bool shared, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (int64_t n = 0; n < N; ++n) {
    const Mask<Pixel> mask(static_cast<const Pixel*>(pixels), windows[n]);
    sample(mask, points + (shared ? 0 : n * P * 2), out + n * P, P, H, W);
  }
}

template <typename T>
int run(const void* pixels, const Window* windows, const T* points, T* out, int64_t S, int64_t N, int64_t P, int64_t H,
        int64_t W, bool shared, int64_t pixel_bytes, int threads) {
  if (!std::all_of(windows, windows + N, [=](const Window& w) { return w.within(S); })) return kBadSize;
  switch (pixel_bytes) {
    case 1: sample_all<T, uint8_t>(pixels, windows, points, out, N, P, H, W, shared, threads); return kOk;
    case 2: sample_all<T, int16_t>(pixels, windows, points, out, N, P, H, W, shared, threads); return kOk;
    case 4: sample_all<T, int32_t>(pixels, windows, points, out, N, P, H, W, shared, threads); return kOk;
    case 8: sample_all<T, int64_t>(pixels, windows, points, out, N, P, H, W, shared, threads); return kOk;
    default: return kBadSize;
  }
}

}  // namespace
}  // namespace m2f::mask_sample

// All contiguous: pixels [S] of 1 (without a sign), 2, 4 or 8 bytes, places [N,6], points [N,P,2] or, shared, [P,2].
// out [N,P] is overwritten.
#define M2F_MASK_SAMPLE(T, SUFFIX)                                                                                 \
  M2F_EXPORT int m2f_sample_mask_##SUFFIX(const void* pixels, const int64_t* places, const T* points, T* out,      \
                                          int64_t S, int64_t N, int64_t P, int64_t H, int64_t W, int64_t shared,   \
                                          int64_t pixel_bytes, int64_t threads) {                                  \
    if (std::min({S, N, P, H, W}) < 0 || threads < 1) return m2f::kBadSize;                                        \
    const auto* windows = reinterpret_cast<const m2f::mask_sample::Window*>(places);                               \
    return m2f::mask_sample::run(pixels, windows, points, out, S, N, P, H, W, shared, pixel_bytes, int(threads));  \
  }

M2F_MASK_SAMPLE(float, f32)
M2F_MASK_SAMPLE(double, f64)
