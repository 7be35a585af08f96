// Semantic result from mask logits on the CPU. See mask2former/ops/mask_results.py for what is computed.
//
// A row of the image's mask probabilities stays in the cache until the rows of the result that need it are done, and
// nothing larger than some such rows is made besides the result.
#include "common.h"
#include "mask_results.h"

namespace m2f::mask_results {
namespace {

// What is added up in registers: the scores of CLASSES classes at VECTORS * LANES pixels.
#ifdef __AVX512VL__
constexpr int CLASSES = 6, VECTORS = 4;  // 24 of 32 registers
#else
constexpr int CLASSES = 6, VECTORS = 2;
#endif
template <typename T>
constexpr int64_t PIXELS = VECTORS * LANES<T>;

// masks gives logits of the image's size H W; rows and columns their probabilities in the result's, which is height x
// width. K classes.
template <typename T>
struct Scores {
  Maps<T> masks;
  Taps<T> rows, columns;
  int64_t height, width, K;
  T* out;  // [K,height,width]

  bool valid() const {
    return masks.valid() && std::min({height, width, K, rows.count, columns.count}) >= 1 &&
           rows.inside(height, masks.n.H) && columns.inside(width, masks.n.W);
  }
};

// Class probabilities [Q,K] -> [K / CLASSES,Q,CLASSES], zeros behind K.
template <typename T>
std::vector<T> pack_classes(const T* probability, int64_t Q, int64_t K) {
  std::vector<T> packed(round_up(K, CLASSES) * Q);
  for (int64_t k = 0; k < K; ++k) {
    for (int64_t q = 0; q < Q; ++q) packed[(k / CLASSES * Q + q) * CLASSES + k % CLASSES] = probability[q * K + k];
  }
  return packed;
}

// A thread's rows.
template <typename T>
class Row {
  static constexpr int64_t L = LANES<T>;

 public:
  Row(const Scores<T>& scores, const T* logits, const T* classes)
      : s_(scores),
        n_(scores.masks.n),
        logits_(logits),
        classes_(classes),
        length_(scores.masks.groups() * n_.W * L),
        stride_(round_up(scores.width, PIXELS<T>)),
        line_(n_.w * L),
        held_(scores.rows.count, -1),
        image_rows_(scores.rows.count * length_),
        blended_(length_),
        pixels_(scores.masks.groups() * L * stride_) {}

  // Row y of the result.
  void write(int64_t y) {
    blend(y);
    for (int64_t g = 0; g < s_.masks.groups(); ++g) lay_out(g);
    for (int64_t k = 0; k < s_.K; k += CLASSES) {
      for (int64_t x = 0; x < s_.width; x += PIXELS<T>) add_up(k, y, x);
    }
  }

 private:
  // Probabilities in row y of the image [groups,W,LANES]. Rows of the result are next to each other, and so are the
  // rows that one is made of: each finds what the last one left.
  const T* image_row(int64_t y) {
    const int64_t slot = y % s_.rows.count;
    T* row = image_rows_.data() + slot * length_;
    if (held_[slot] == y) return row;
    held_[slot] = y;
    for (int64_t g = 0; g < s_.masks.groups(); ++g) {
      make_line(s_.masks, logits_ + g * n_.h * n_.w * L, y, line_.data());
      T* to = row + g * n_.W * L;
      for (int64_t x = 0; x < n_.W; ++x) store(to + x * L, sigmoid<T>(pixel(s_.masks.columns, line_.data(), x)));
    }
    return row;
  }

  // blended [groups,W,LANES]: the image's rows at the height of the result's row y.
  void blend(int64_t y) {
    for (int64_t t = 0; t < s_.rows.count; ++t) {
      const T weight = s_.rows.weight[y * s_.rows.count + t];
      const T* row = image_row(s_.rows.index[y * s_.rows.count + t]);
      if (t == 0) {
        for (int64_t i = 0; i < length_; ++i) blended_[i] = weight * row[i];
      } else {
        for (int64_t i = 0; i < length_; ++i) blended_[i] += weight * row[i];
      }
    }
  }

  // pixels [groups*LANES,stride]: a group of the blended row at the width of the result, queries one below the other.
  void lay_out(int64_t g) {
    const T* from = blended_.data() + g * n_.W * L;
    T* to = pixels_.data() + g * L * stride_;
    for (int64_t x = 0; x < s_.width; x += L) {
      Vec<T> values[LANES<T>];
      for (int64_t l = 0; l < L; ++l) values[l] = pixel(s_.columns, from, std::min(x + l, s_.width - 1));
      simd::transpose<T>(values);
      for (int64_t l = 0; l < L; ++l) store(to + l * stride_ + x, values[l]);
    }
  }

  // Scores of CLASSES classes from k on, at PIXELS pixels of row y from x on.
  void add_up(int64_t k, int64_t y, int64_t x) {
    Vec<T> sums[CLASSES][VECTORS] = {};
    const T* classes = classes_ + k * n_.Q;
    const T* pixels = pixels_.data() + x;
    for (int64_t q = 0; q < n_.Q; ++q, classes += CLASSES, pixels += stride_) {
      Vec<T> values[VECTORS];
      for (int v = 0; v < VECTORS; ++v) values[v] = load(pixels + v * L);
      for (int c = 0; c < CLASSES; ++c) {
        for (int v = 0; v < VECTORS; ++v) sums[c][v] += classes[c] * values[v];
      }
    }
    const int64_t count = std::min(PIXELS<T>, s_.width - x);
    for (int64_t c = 0; c < std::min<int64_t>(CLASSES, s_.K - k); ++c) {
      T* to = s_.out + ((k + c) * s_.height + y) * s_.width + x;
      if (count == PIXELS<T>) {
        std::memcpy(to, sums[c], sizeof sums[c]);  // a few stores, since the size is known
      } else {
        std::memcpy(to, sums[c], count * sizeof(T));
      }
    }
  }

  const Scores<T>& s_;
  const Sizes& n_;
  const T *logits_, *classes_;
  int64_t length_, stride_;
  std::vector<T> line_;  // [w,LANES]
  std::vector<int64_t> held_;  // rows of the image that are in image_rows
  std::vector<T> image_rows_, blended_, pixels_;
};

template <typename T>
void scores(const Scores<T>& s, const T* probability, int threads) {
  const std::vector<T> logits = pack(s.masks, threads), classes = pack_classes(probability, s.masks.n.Q, s.K);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    Row<T> row(s, logits.data(), classes.data());
#pragma omp for schedule(static)
    for (int64_t y = 0; y < s.height; ++y) row.write(y);
  }
}

}  // namespace
}  // namespace m2f::mask_results

// All contiguous: logits [Q,h,w]; taps as in Python, of the image (H, W) and then of the result (height, width);
// probability [Q,K]. out [K,height,width] is overwritten.
#define M2F_MASK_SCORES(T, SUFFIX)                                                                                    \
  M2F_EXPORT int m2f_mask_scores_##SUFFIX(                                                                            \
      const T* logits, const int64_t* row_index, const T* row_weight, const int64_t* column_index,                    \
      const T* column_weight, const int64_t* last_row_index, const T* last_row_weight,                                \
      const int64_t* last_column_index, const T* last_column_weight, const T* probability, T* out, int64_t Q,         \
      int64_t h, int64_t w, int64_t H, int64_t W, int64_t row_taps, int64_t column_taps, int64_t height,              \
      int64_t width, int64_t last_row_taps, int64_t last_column_taps, int64_t K, int64_t threads) {                   \
    const m2f::mask_results::Maps<T> maps{                                                                            \
        logits, {row_index, row_weight, row_taps}, {column_index, column_weight, column_taps}, {Q, h, w, H, W}};      \
    const m2f::mask_results::Scores<T> scores{maps,                                                                   \
                                              {last_row_index, last_row_weight, last_row_taps},                       \
                                              {last_column_index, last_column_weight, last_column_taps},              \
                                              height,                                                                 \
                                              width,                                                                  \
                                              K,                                                                      \
                                              out};                                                                   \
    if (!scores.valid() || threads < 1) return m2f::kBadSize;                                                         \
    m2f::mask_results::scores(scores, probability, int(threads));                                                     \
    return m2f::kOk;                                                                                                  \
  }

M2F_MASK_SCORES(float, f32)
M2F_MASK_SCORES(double, f64)
