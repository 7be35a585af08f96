// Panoptic and instance results from mask logits on the CPU. See mask2former/ops/mask_results.py for what is computed.
#include "common.h"
#include "mask_results.h"

#include <limits>

namespace m2f::mask_results {
namespace {

// states [H,W], full [Q]
template <typename T>
void owners(const Maps<T>& maps, const T* scores, int64_t* states, int64_t* full, int threads) {
  constexpr int64_t L = LANES<T>;
  const Sizes& n = maps.n;
  const std::vector<T> packed = pack(maps, threads);
  // a lane without a query never wins, not even where all others are NaN
  std::vector<T> padded(maps.groups() * L, -std::numeric_limits<T>::infinity());
  std::copy(scores, scores + n.Q, padded.begin());
  std::fill(full, full + n.Q, 0);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    std::vector<T> line(n.w * L), best(n.W * L);
    std::vector<Index<T>> state(n.W);  // of the best: twice the number of its group's first query, plus 1 inside
    std::vector<int64_t> areas(maps.groups() * L);
#pragma omp for
    for (int64_t y = 0; y < n.H; ++y) {
      std::fill(best.begin(), best.end(), T(-1));
      std::fill(state.begin(), state.end(), Index<T>{});
      for (int64_t g = 0; g < maps.groups(); ++g) {
        make_line(maps, packed.data() + g * n.h * n.w * L, y, line.data());
        const Vec<T> score = load(padded.data() + g * L);
        const Index<T> first = Index<T>{} + int(2 * g * L);
        Index<T> area{};
        for (int64_t x = 0; x < n.W; ++x) {
          const Vec<T> value = pixel(maps.columns, line.data(), x);
          const Vec<T> product = score * sigmoid<T>(value), former = load(best.data() + x * L);
          const Index<T> inside = value >= 0, wins = product > former;  // all bits where true
          area -= inside;
          store(best.data() + x * L, wins ? product : former);
          state[x] = wins ? first - inside : state[x];
        }
        for (int64_t l = 0; l < L; ++l) areas[g * L + l] += area[l];
      }
      for (int64_t x = 0; x < n.W; ++x) {
        int64_t winner = state[x][0];
        T highest = best[x * L];
        for (int64_t l = 1; l < L; ++l) {
          const int64_t rival = state[x][l] + 2 * l;
          const T product = best[x * L + l];
          if (product > highest || (product == highest && rival < winner)) winner = rival, highest = product;
        }
        states[y * n.W + x] = winner;
      }
    }
#pragma omp critical(m2f_mask_owners)
    for (int64_t q = 0; q < n.Q; ++q) full[q] += areas[q];
  }
}

// What rows of a group of masks add up to, by lane.
struct Part {
  double totals[8] = {};
  int64_t areas[8] = {};
  int64_t left[8], top[8], right[8] = {}, bottom[8] = {};  // bounds of the pixels inside; right and bottom exclusive
};

// Bit l of the result is set where lane l of a comparison is true.
template <typename T>
inline uint8_t to_bits(Index<T> truth) {
  uint8_t bytes[8] = {};
  for (int64_t l = 0; l < LANES<T>; ++l) bytes[l] = uint8_t(truth[l]);
  uint64_t word;
  std::memcpy(&word, bytes, sizeof word);
  return uint8_t(((word & 0x8040201008040201u) * 0x0101010101010101u) >> 56);
}

// Rows [begin,end) of a group's masks; bits and columns [W] and line are scratch.
template <typename T>
Part binarise(const Maps<T>& maps, const T* group, int64_t g, int64_t begin, int64_t end, uint8_t* masks, T* line,
              uint8_t* bits, uint8_t* columns) {
  constexpr int64_t L = LANES<T>;
  const Sizes& n = maps.n;
  Part part;
  std::fill(part.left, part.left + 8, n.W);
  std::fill(part.top, part.top + 8, n.H);
  std::fill(columns, columns + n.W, 0);
  for (int64_t y = begin; y < end; ++y) {
    make_line(maps, group, y, line);
    Vec<T> sum{};
    Index<T> area{};
    for (int64_t x = 0; x < n.W; ++x) {
      const Vec<T> value = pixel(maps.columns, line, x);
      const Index<T> inside = value > 0;
      bits[x] = to_bits<T>(inside);
      if (!bits[x]) continue;
      sum += inside ? sigmoid<T>(value) : Vec<T>{};
      area -= inside;
    }
    for (int64_t x = 0; x < n.W; ++x) columns[x] |= bits[x];
    for (int64_t l = 0; l < maps.members(g); ++l) {
      uint8_t* mask = masks + ((g * L + l) * n.H + y) * n.W;
      for (int64_t x = 0; x < n.W; ++x) mask[x] = bits[x] >> l & 1;
      part.totals[l] += sum[l];
      part.areas[l] += area[l];
      if (area[l] == 0) continue;
      part.top[l] = std::min(part.top[l], y);
      part.bottom[l] = y + 1;
    }
  }
  for (int64_t l = 0; l < L; ++l) {
    for (int64_t x = 0; x < n.W; ++x) {
      if (!(columns[x] >> l & 1)) continue;
      part.left[l] = std::min(part.left[l], x);
      part.right[l] = x + 1;
    }
  }
  return part;
}

// masks [Q,H,W], totals and areas [Q], boxes [Q,4]
template <typename T>
void binary(const Maps<T>& maps, uint8_t* masks, double* totals, int64_t* areas, int64_t* boxes, int threads) {
  constexpr int64_t L = LANES<T>, kRows = 32;  // of a task
  const Sizes& n = maps.n;
  const int64_t strips = (n.H + kRows - 1) / kRows, group_size = n.h * n.w * L;
  const std::vector<T> packed = pack(maps, threads);
  std::vector<Part> parts(maps.groups() * strips);  // added up in order, whichever thread is faster
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    std::vector<T> line(n.w * L);
    std::vector<uint8_t> bits(n.W), columns(n.W);
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < maps.groups() * strips; ++i) {
      const int64_t g = i / strips, begin = i % strips * kRows, end = std::min(begin + kRows, n.H);
      parts[i] = binarise(maps, packed.data() + g * group_size, g, begin, end, masks, line.data(), bits.data(),
                          columns.data());
    }
  }
  for (int64_t q = 0; q < n.Q; ++q) {
    const int64_t l = q % L;
    const Part* part = parts.data() + q / L * strips;
    totals[q] = areas[q] = 0;
    int64_t *box = boxes + 4 * q, left = n.W, top = n.H, right = 0, bottom = 0;
    for (int64_t s = 0; s < strips; ++s) {
      totals[q] += part[s].totals[l];
      areas[q] += part[s].areas[l];
      left = std::min(left, part[s].left[l]);
      top = std::min(top, part[s].top[l]);
      right = std::max(right, part[s].right[l]);
      bottom = std::max(bottom, part[s].bottom[l]);
    }
    box[0] = std::min(left, right);  // 0 of an empty mask
    box[1] = std::min(top, bottom);
    box[2] = right;
    box[3] = bottom;
  }
}

}  // namespace
}  // namespace m2f::mask_results

// Shapes as above, all contiguous; what is not const is overwritten.
#define M2F_MASK_RESULTS(T, SUFFIX)                                                                                   \
  M2F_EXPORT int m2f_mask_owners_##SUFFIX(                                                                            \
      const T* logits, const int64_t* row_index, const T* row_weight, const int64_t* column_index,                    \
      const T* column_weight, const T* scores, int64_t* states, int64_t* full, int64_t Q, int64_t h, int64_t w,       \
      int64_t H, int64_t W, int64_t row_taps, int64_t column_taps, int64_t threads) {                                 \
    const m2f::mask_results::Maps<T> maps{                                                                            \
        logits, {row_index, row_weight, row_taps}, {column_index, column_weight, column_taps}, {Q, h, w, H, W}};      \
    if (!maps.valid() || threads < 1) return m2f::kBadSize;                                                           \
    m2f::mask_results::owners(maps, scores, states, full, int(threads));                                              \
    return m2f::kOk;                                                                                                  \
  }                                                                                                                   \
  M2F_EXPORT int m2f_mask_binary_##SUFFIX(                                                                            \
      const T* logits, const int64_t* row_index, const T* row_weight, const int64_t* column_index,                    \
      const T* column_weight, uint8_t* masks, double* totals, int64_t* areas, int64_t* boxes, int64_t Q, int64_t h,   \
      int64_t w, int64_t H, int64_t W, int64_t row_taps, int64_t column_taps, int64_t threads) {                      \
    const m2f::mask_results::Maps<T> maps{                                                                            \
        logits, {row_index, row_weight, row_taps}, {column_index, column_weight, column_taps}, {Q, h, w, H, W}};      \
    if (!maps.valid() || threads < 1) return m2f::kBadSize;                                                           \
    m2f::mask_results::binary(maps, masks, totals, areas, boxes, int(threads));                                       \
    return m2f::kOk;                                                                                                  \
  }

M2F_MASK_RESULTS(float, f32)
M2F_MASK_RESULTS(double, f64)
