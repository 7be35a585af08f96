// 3x3 convolution on the CPU by Winograd's minimal filtering. See mask2former/ops/winograd.py for what is computed.
//
// Transformed, it is a product of tiles [T,C] and taps [C,K] for each of 16 places. Tiles are taken ROWS at a time, a
// panel [P,C/LANES,ROWS,LANES], and output channels WIDTH at a time, a slice [P,C,WIDTH]; a few panels by a slice are
// multiplied and transformed back while they are in the cache. Either all slices are made first, or all panels,
// whichever are the smaller.
#include "common.h"
#include "simd.h"
#include "winograd_transforms.h"

#include <omp.h>

namespace m2f::winograd {
namespace {

constexpr int64_t BLOCK_BYTES = 1 << 19;  // of panels that one slice after another is multiplied by: they stay in L2

// x [N,H,W,C], out [N,H,W,K], weight [K,3,3,C], or where transposed [C,3,3,K], and read backwards. scale has a number
// for each of weight's first axis, bias one of each output channel; both may be null.
struct Convolution {
  const float *x, *weight, *scale, *bias;
  float* out;
  Tiles tiles;
  int64_t C, K;
  bool relu, transposed;

  bool valid() const {
    return std::min({tiles.N, tiles.H, tiles.W, C, K}) >= 1 && C % WIDTH == 0 && K % WIDTH == 0;
  }
  int64_t panels() const { return (tiles.count() + ROWS - 1) / ROWS; }
  int64_t panel_size() const { return PLACES * C * ROWS; }
  int64_t slices() const { return K / WIDTH; }
  int64_t slice_size() const { return PLACES * C * WIDTH; }
};

void make_panel(const Convolution& n, int64_t panel, const float* zeros, float* to) {
  for (int64_t r = 0; r < ROWS; ++r, to += LANES) {
    const float* pixels[PLACES];
    find_pixels<4>(n.tiles, panel * ROWS + r, n.x, n.C, zeros, pixels);
    for (int64_t c = 0; c < n.C; c += LANES) {
      Vec v[PLACES];
      for (int p = 0; p < PLACES; ++p) v[p] = load(pixels[p] + c);
      transform_pixels(v);
      for (int p = 0; p < PLACES; ++p) store(to + (p * n.C + c) * ROWS, v[p]);
    }
  }
}

// WIDTH taps from those that are `step` apart, times the factors.
void make_taps(const float* taps, int64_t step, const Vec* factors, int64_t place_size, float* to) {
  for (int half = 0; half < 2; ++half, taps += LANES, to += LANES) {
    Vec v[PLACES];
    for (int i = 0; i < TAPS; ++i) v[i / 3 * SIDE + i % 3] = load(taps + i * step) * factors[half];
    transform_taps(v);
    for (int p = 0; p < PLACES; ++p) store(to + p * place_size, v[p]);
  }
}

void make_slice(const Convolution& n, int64_t k, float* to) {
  constexpr int64_t EDGE = simd::LANES<float>;  // of squares that are transposed
  const int64_t place_size = n.C * WIDTH;
  Vec factors[2] = {Vec{} + 1, Vec{} + 1};
  if (n.transposed) {
    for (int64_t c = 0; c < n.C; ++c, to += WIDTH) {
      if (n.scale) factors[0] = factors[1] = Vec{} + n.scale[c];
      make_taps(n.weight + (c * TAPS + TAPS - 1) * n.K + k, -n.K, factors, place_size, to);
    }
    return;
  }
  if (n.scale) {
    for (int half = 0; half < 2; ++half) factors[half] = load(n.scale + k + half * LANES);
  }
  float square[TAPS * EDGE * WIDTH];  // [9,C,K]
  for (int64_t c = 0; c < n.C; c += EDGE) {
    for (int64_t i = 0; i < TAPS; ++i) {
      for (int64_t j = 0; j < WIDTH; j += EDGE) {
        const float* from = n.weight + ((k + j) * TAPS + i) * n.C + c;
        simd::transpose<float>(from, TAPS * n.C, square + i * EDGE * WIDTH + j, WIDTH);
      }
    }
    for (int64_t i = 0; i < EDGE; ++i, to += WIDTH) {
      make_taps(square + i * WIDTH, EDGE * WIDTH, factors, place_size, to);
    }
  }
}

// products [P,count * ROWS,WIDTH] of count panels and a slice.
void multiply_panels(const Convolution& n, const float* panels, int64_t count, const float* slice, float* products) {
  for (int64_t p = 0; p < PLACES; ++p, slice += n.C * WIDTH) {
    for (int64_t i = 0; i < count; ++i, products += ROWS * WIDTH) {
      multiply<ROWS, LANES, 1>(panels + i * n.panel_size() + p * n.C * ROWS, slice, n.C, products, false);
    }
  }
}

// Output channels k to k + WIDTH of the tiles of count panels.
void write_results(const Convolution& n, int64_t panel, int64_t count, const float* products, int64_t k) {
  const int64_t first = panel * ROWS, place_size = count * ROWS * WIDTH;
  const int64_t end = std::min(first + count * ROWS, n.tiles.count());
  Vec bias[2] = {};
  for (int half = 0; n.bias && half < 2; ++half) bias[half] = load(n.bias + k + half * LANES);
  for (int64_t tile = first; tile < end; ++tile, products += WIDTH) {
    float* pixels[4];
    find_pixels<2>(n.tiles, tile, n.out + k, n.K, static_cast<float*>(nullptr), pixels);
    for (int half = 0; half < 2; ++half) {
      Vec v[PLACES];
      for (int p = 0; p < PLACES; ++p) v[p] = load(products + p * place_size + half * LANES);
      transform_results(v);
      for (int i = 0; i < 4; ++i) {
        Vec result = v[i / 2 * SIDE + i % 2] + bias[half];
        if (n.relu) result = result < Vec{} ? Vec{} : result;  // as torch's, it leaves NaN
        if (pixels[i]) store(pixels[i] + half * LANES, result);
      }
    }
  }
}

int64_t block_panels(const Convolution& n) {
  return std::max<int64_t>(1, BLOCK_BYTES / (n.panel_size() * int64_t(sizeof(float))));
}

void by_panels(const Convolution& n, int threads) {
  const int64_t block = block_panels(n);
  const std::vector<float> zeros(n.C);
  const Scratch<SHARED> slices(n.slices() * n.slice_size());
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
#pragma omp for schedule(static)
    for (int64_t s = 0; s < n.slices(); ++s) make_slice(n, s * WIDTH, slices.data + s * n.slice_size());
    const int64_t thread = omp_get_thread_num(), team = omp_get_num_threads(), end = n.panels() * (thread + 1) / team;
    const Scratch<OWN> own(block * (n.panel_size() + PLACES * ROWS * WIDTH));
    float *panels = own.data, *products = panels + block * n.panel_size();
    for (int64_t first = n.panels() * thread / team; first < end; first += block) {
      const int64_t count = std::min(block, end - first);
      for (int64_t i = 0; i < count; ++i) make_panel(n, first + i, zeros.data(), panels + i * n.panel_size());
      for (int64_t s = 0; s < n.slices(); ++s) {
        multiply_panels(n, panels, count, slices.data + s * n.slice_size(), products);
        write_results(n, first, count, products, s * WIDTH);
      }
    }
  }
}

void by_slices(const Convolution& n, int threads) {
  const int64_t block = block_panels(n);
  const std::vector<float> zeros(n.C);
  const Scratch<SHARED> panels(n.panels() * n.panel_size());
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
#pragma omp for schedule(static)
    for (int64_t i = 0; i < n.panels(); ++i) make_panel(n, i, zeros.data(), panels.data + i * n.panel_size());
    const Scratch<OWN> own(n.slice_size() + block * PLACES * ROWS * WIDTH);
    float *slice = own.data, *products = slice + n.slice_size();
#pragma omp for schedule(static)
    for (int64_t s = 0; s < n.slices(); ++s) {
      make_slice(n, s * WIDTH, slice);
      for (int64_t first = 0; first < n.panels(); first += block) {
        const int64_t count = std::min(block, n.panels() - first);
        multiply_panels(n, panels.data + first * n.panel_size(), count, slice, products);
        write_results(n, first, count, products, s * WIDTH);
      }
    }
  }
}

}  // namespace
}  // namespace m2f::winograd

// All contiguous, channels last; see Convolution. out is overwritten.
M2F_EXPORT int m2f_winograd_f32(const float* x, const float* weight, const float* scale, const float* bias, float* out,
                                int64_t N, int64_t H, int64_t W, int64_t C, int64_t K, int64_t relu,
                                int64_t transposed, int64_t threads) {
  const m2f::winograd::Convolution n{x, weight, scale, bias, out, {N, H, W}, C, K, relu != 0, transposed != 0};
  if (!n.valid() || threads < 1) return m2f::kBadSize;
  const bool few_tiles = n.panels() * n.panel_size() < n.slices() * n.slice_size();
  (few_tiles ? m2f::winograd::by_slices : m2f::winograd::by_panels)(n, int(threads));
  return m2f::kOk;
}
