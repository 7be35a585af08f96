// The gradient of the taps of winograd.cpp's convolution: the transposed transforms around the same products.
//
// What is summed over tiles are squares, WIDTH output channels by WIDTH channels of x. Of many tiles, a thread takes
// all, a block at a time, for rows of places and channels of its own: the threads meet once, before the sums are
// transformed back. Of few tiles, all are transformed first, and what is summed never leaves the cache.
#include "common.h"
#include "winograd_transforms.h"

#include <omp.h>

namespace m2f::winograd {
namespace {

constexpr int64_t ROW_BYTES = 1 << 19;  // of a row of places of a block
constexpr int64_t SUM = 32;  // tiles whose products are summed in registers
constexpr int64_t SQUARE = SIDE * WIDTH * WIDTH;  // of a row of places

// x [N,H,W,C], grad [N,H,W,K], weight_grad [K,3,3,C]; scale [K] or null
struct WeightGrad {
  const float *grad, *x, *scale;
  float* weight_grad;
  Tiles tiles;
  int64_t C, K;

  bool valid() const {
    return std::min({tiles.N, tiles.H, tiles.W, C, K}) >= 1 && C % WIDTH == 0 && K % WIDTH == 0;
  }
  int64_t slices() const { return C / WIDTH; }
  int64_t squares() const { return K / WIDTH * slices(); }
  int64_t padded() const { return round_up(tiles.count(), LANES); }
  int64_t row_bytes() const { return SIDE * (C + K) * int64_t(sizeof(float)); }  // of a tile
};

// A row of a transformed tile is the sum of two rows of pixels or of gradients, or their difference.
struct TwoRows {
  int first, second;
  float sign;
};
constexpr TwoRows PIXEL_ROWS[SIDE] = {{0, 2, -1}, {1, 2, 1}, {2, 1, -1}, {1, 3, -1}};
constexpr int NONE = 2;  // a row of zeros behind the two of gradients
constexpr TwoRows RESULT_ROWS[SIDE] = {{0, NONE, 1}, {0, 1, 1}, {0, 1, -1}, {NONE, 1, -1}};

// Room for `size` tiles, a row of places of each: pixels [slices,SIDE,size,WIDTH] and
// grads [SIDE,K/GRAD_ROWS,size,GRAD_ROWS].
struct Block {
  float *pixels, *grads;
  int64_t size;
};

// Slices from first to end of tile number `tile` to place t of the block.
void transform_x(const WeightGrad& n, int64_t tile, int row, int64_t first, int64_t end, const float* zeros,
                 const Block& to, int64_t t) {
  const TwoRows rows = PIXEL_ROWS[row];
  const float* pixels[PLACES];
  find_pixels<4>(n.tiles, tile, n.x, n.C, zeros, pixels);
  const float *const *upper = pixels + rows.first * SIDE, *const *lower = pixels + rows.second * SIDE;
  float* place = to.pixels + t * WIDTH;
  for (int64_t s = first; s < end; ++s, place += SIDE * to.size * WIDTH) {
    for (int64_t l = 0; l < WIDTH; l += LANES) {
      const int64_t c = s * WIDTH + l;
      Vec v[SIDE];
      for (int j = 0; j < SIDE; ++j) v[j] = load(upper[j] + c) + load(lower[j] + c) * rows.sign;
      pixels_axis(v, 1);
      for (int j = 0; j < SIDE; ++j) store(place + j * to.size * WIDTH + l, v[j]);
    }
  }
}

void transform_grad(const WeightGrad& n, int64_t tile, int row, const float* zeros, const Block& to, int64_t t) {
  const TwoRows rows = RESULT_ROWS[row];
  const float* pixels[6] = {nullptr, nullptr, nullptr, nullptr, zeros, zeros};
  find_pixels<2>(n.tiles, tile, n.grad, n.K, zeros, pixels);
  const float *const *upper = pixels + rows.first * 2, *const *lower = pixels + rows.second * 2;
  for (int64_t k = 0; k < n.K; k += LANES) {
    Vec v[SIDE];
    for (int j = 0; j < 2; ++j) v[j] = load(upper[j] + k) + load(lower[j] + k) * rows.sign;
    results_axis_transposed(v, 1);
    for (int j = 0; j < SIDE; ++j) {
      float numbers[LANES];
      store(numbers, v[j]);
      for (int64_t l = 0; l < LANES; l += GRAD_ROWS) {
        float* group = to.grads + (j * n.K + k + l) * to.size;
        std::memcpy(group + t * GRAD_ROWS, numbers + l, GRAD_ROWS * sizeof(float));
      }
    }
  }
}

// Writes, or adds, count tiles of a block to a square's row [SIDE,WIDTH,WIDTH]; output channels from k on, slice s.
// Short sums that are added up are more accurate than long ones.
void add_tiles(const WeightGrad& n, const Block& block, int64_t count, int64_t k, int64_t s, float* sums, bool add) {
  for (int64_t j = 0; j < SIDE; ++j) {
    const float* pixels = block.pixels + (s * SIDE + j) * block.size * WIDTH;
    const float* grads = block.grads + (j * n.K + k) * block.size;
    for (int64_t r = 0; r < WIDTH; r += GRAD_ROWS, grads += GRAD_ROWS * block.size, sums += GRAD_ROWS * WIDTH) {
      for (int64_t t = 0; t < count; t += SUM) {
        const int64_t depth = std::min(SUM, count - t);
        multiply<GRAD_ROWS, 1, GRAD_ROWS>(grads + t * GRAD_ROWS, pixels + t * WIDTH, depth, sums, add || t > 0);
      }
    }
  }
}

// Rows of sums are row_size apart.
void write_taps(const WeightGrad& n, const float* sums, int64_t row_size, int64_t k, int64_t c) {
  for (int64_t row = k; row < k + WIDTH; ++row) {
    const float scale = n.scale ? n.scale[row] : 1;
    for (int64_t column = c; column < c + WIDTH; column += LANES, sums += LANES) {
      Vec v[PLACES];
      for (int p = 0; p < PLACES; ++p) v[p] = load(sums + p / SIDE * row_size + p % SIDE * WIDTH * WIDTH);
      transform_taps_back(v);
      for (int i = 0; i < TAPS; ++i) {
        store(n.weight_grad + (row * TAPS + i) * n.C + column, v[i / 3 * SIDE + i % 3] * scale);
      }
    }
  }
}

void of_few_tiles(const WeightGrad& n, const float* zeros, int threads) {
  const int64_t size = n.padded(), wide = n.K / WIDTH;
  const Scratch<SHARED> tiles(PLACES * (n.C + n.K) * size);
  const auto block = [&](int64_t row) {
    float* pixels = tiles.data + row * SIDE * (n.C + n.K) * size;
    return Block{pixels, pixels + SIDE * n.C * size, size};
  };
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
#pragma omp for schedule(static)
    for (int64_t t = 0; t < size; ++t) {  // what lies behind the last tile is zero
      for (int row = 0; row < SIDE; ++row) {
        transform_x(n, t, row, 0, n.slices(), zeros, block(row), t);
        transform_grad(n, t, row, zeros, block(row), t);
      }
    }
    const Scratch<OWN> sums(SIDE * SQUARE);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < n.squares(); ++i) {
      for (int row = 0; row < SIDE; ++row) {
        add_tiles(n, block(row), size, i % wide * WIDTH, i / wide, sums.data + row * SQUARE, false);
      }
      write_taps(n, sums.data, SQUARE, i % wide * WIDTH, i / wide * WIDTH);
    }
  }
}

// Sums [K/WIDTH squares,SIDE,WIDTH,WIDTH] of a row of places, slices from first to end.
void sum_row(const WeightGrad& n, int row, int64_t first, int64_t end, const float* zeros, const Block& block,
             float* sums) {
  for (int64_t tile = 0; tile < n.padded(); tile += block.size) {
    const int64_t count = std::min(block.size, n.padded() - tile);
    for (int64_t t = 0; t < count; ++t) {
      transform_x(n, tile + t, row, first, end, zeros, block, t);
      transform_grad(n, tile + t, row, zeros, block, t);
    }
    float* square = sums;
    for (int64_t s = 0; s < end - first; ++s) {
      for (int64_t k = 0; k < n.K; k += WIDTH, square += SQUARE) add_tiles(n, block, count, k, s, square, tile > 0);
    }
  }
}

void of_many_tiles(const WeightGrad& n, const float* zeros, int threads) {
  const int64_t size = std::max<int64_t>(1, ROW_BYTES / n.row_bytes() / LANES) * LANES, wide = n.K / WIDTH;
  const int64_t row_size = n.squares() * SQUARE, tasks = SIDE * n.slices();
  const Scratch<SHARED> sums(SIDE * row_size);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    const Scratch<OWN> tiles(SIDE * (n.C + n.K) * size);
    const Block block{tiles.data, tiles.data + SIDE * n.C * size, size};
    const int64_t thread = omp_get_thread_num(), team = omp_get_num_threads(), last = tasks * (thread + 1) / team;
    for (int64_t task = tasks * thread / team; task < last;) {
      const int64_t row = task / n.slices(), first = task % n.slices(), end = std::min(n.slices(), first + last - task);
      sum_row(n, int(row), first, end, zeros, block, sums.data + task * wide * SQUARE);
      task += end - first;
    }
#pragma omp barrier
#pragma omp for schedule(static)
    for (int64_t i = 0; i < n.squares(); ++i) {
      write_taps(n, sums.data + i * SQUARE, row_size, i % wide * WIDTH, i / wide * WIDTH);
    }
  }
}

void weight_grad(const WeightGrad& n, int threads) {
  const std::vector<float> zeros(std::max(n.C, n.K));
  const bool few = n.padded() * (n.C + n.K) < n.C * n.K;  // whichever takes less memory
  (few ? of_few_tiles : of_many_tiles)(n, zeros.data(), threads);
}

}  // namespace
}  // namespace m2f::winograd

// All contiguous, channels last; see WeightGrad. weight_grad is overwritten.
M2F_EXPORT int m2f_winograd_weight_grad_f32(const float* grad, const float* x, const float* scale, float* weight_grad,
                                            int64_t N, int64_t H, int64_t W, int64_t C, int64_t K, int64_t threads) {
  const m2f::winograd::WeightGrad n{grad, x, scale, weight_grad, {N, H, W}, C, K};
  if (!n.valid() || threads < 1) return m2f::kBadSize;
  m2f::winograd::weight_grad(n, int(threads));
  return m2f::kOk;
}
