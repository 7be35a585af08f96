// What both passes of group normalisation share.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

namespace m2f::group_norm {

// N images of H x W pixels, C channels in G groups
struct Sizes {
  int64_t N, H, W, C, G;

  bool valid() const { return std::min({N, H, W, C, G}) >= 1 && C % G == 0; }
  int64_t P() const { return H * W; }

  // Pixels whose sums are taken in the maps' own precision; their 32 KB stay in the cache.
  template <typename T>
  int64_t block() const { return std::clamp<int64_t>(32768 / (C * int64_t(sizeof(T))), 1, 64); }

  // An image's pixels are divided into at most PARTS, of whole blocks, each the work of one thread.
  static constexpr int64_t PARTS = 64;
  template <typename T>
  int64_t parts() const { return std::min(PARTS, (P() + block<T>() - 1) / block<T>()); }
  template <typename T>
  int64_t first(int64_t part) const {
    const int64_t blocks = (P() + block<T>() - 1) / block<T>();
    return std::min(P(), blocks * part / parts<T>() * block<T>());
  }
};

// (x - middle) * scale + shift of each channel: middle is the mean but for its last digits, which are in shift.
template <typename T>
struct Affine {
  const T *middle, *scale, *shift;  // [C]

  Affine(const T* numbers, int64_t image, int64_t C)
      : middle(numbers + image * 3 * C), scale(middle + C), shift(scale + C) {}
  T at(T x, int64_t c) const { return (x - middle[c]) * scale[c] + shift[c]; }
};

template <typename T>
struct Norm {
  const double* statistics;  // [N,G,2], mean and 1 / deviation
  const T *weight, *bias;  // [C]

  double mean(const Sizes& n, int64_t image, int64_t c) const { return group(n, image, c)[0]; }
  double rate(const Sizes& n, int64_t image, int64_t c) const { return group(n, image, c)[1]; }

  // [N,3,C]
  std::vector<T> affine(const Sizes& n) const {
    std::vector<T> numbers(n.N * 3 * n.C);
    for (int64_t image = 0; image < n.N; ++image) {
      T* to = numbers.data() + image * 3 * n.C;
      for (int64_t c = 0; c < n.C; ++c) {
        const double scale = weight[c] * rate(n, image, c);
        to[c] = T(mean(n, image, c));
        to[n.C + c] = T(scale);
        to[2 * n.C + c] = T(bias[c] + (to[c] - mean(n, image, c)) * scale);
      }
    }
    return numbers;
  }

 private:
  const double* group(const Sizes& n, int64_t image, int64_t c) const {
    return statistics + 2 * (image * n.G + c / (n.C / n.G));
  }
};

}  // namespace m2f::group_norm
