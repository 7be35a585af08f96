// Multi-scale deformable attention on a GPU. See mask2former/ops/ms_deform_attn.py for what is computed.
//
// G neighbouring lanes work on one query and head, each on V channels that are one 16-byte load. Each lane reads and
// locates another sample, then the lanes tell each other theirs: locations and weights are read once per head.
// Results that belong to a sample are summed by shuffles; only grad_value, which samples share, is added to atomically.
#include "ms_deform_attn.cuh"

namespace m2f {
namespace {

constexpr int THREADS = 128;

// The query and head that a group of G lanes works on. All groups of a warp stay together, since they shuffle: those
// without one do as the last one does, and write nothing.
struct Item {
  int64_t index;  // of [B,Q,H]
  bool active;

  __device__ __forceinline__ Item(int64_t index, int64_t count)
      : index(index < count ? index : count - 1), active(index < count) {}

  __device__ __forceinline__ int64_t value_offset(const Sizes& n) const {
    return (index / n.H / n.Q * n.S * n.H + index % n.H) * n.D;
  }
};

template <typename T, int V, int G>
__global__ void __launch_bounds__(THREADS)
    forward(const T* value, const __grid_constant__ Levels levels, const Acc<T>* locations, const Acc<T>* weights,
            T* out, const Sizes n) {
  using A = Acc<T>;
  const int lane = threadIdx.x % G, samples = n.L * n.P;
  const int64_t items = n.B * n.Q * n.H, step = int64_t(gridDim.x) * (THREADS / G), pixel_stride = int64_t(n.H) * n.D;
  for (int64_t first = int64_t(blockIdx.x) * (THREADS / G); first < items; first += step) {
    const Item item(first + threadIdx.x / G, items);
    const T* image = value + item.value_offset(n);
    for (int part = 0; part < n.D; part += G * V) {
      const int d = part + lane * V;
      A sum[V] = {}, poison = 0;
      for (int s = 0; s < samples; s += G) {
        const Sample<A> own = read_sample(locations + item.index * samples * 2, weights + item.index * samples,
                                          s + lane, levels, n);
        poison += own.poison;
        for (int j = 0; j < min(G, samples - s); ++j) {
          const Sample<A> sample = share_sample<G>(own, j);
#pragma unroll
          for (int k = 0; k < 4; ++k) {
            if (d >= n.D || !sample.inside(k)) continue;
            const auto pixel = Vector<T, V>::load(image + sample.corner(k) * pixel_stride + d);
            const A share = sample.weight * sample.share(k);
#pragma unroll
            for (int i = 0; i < V; ++i) sum[i] += share * A(pixel.x[i]);
          }
        }
      }
      poison = sum_over(poison, G, WHOLE_WARP);
      if (d >= n.D || !item.active) continue;
      Vector<T, V> result;
#pragma unroll
      for (int i = 0; i < V; ++i) result.x[i] = T(sum[i] + poison);
      result.store(out + item.index * n.D + d);
    }
  }
}

// One lane's part of a sample's gradients: adds to grad_value, and returns its products of gradient and each pixel.
// value and grad_value start at the image and head, grad at the query and head.
template <typename T, int V, int G>
__device__ __forceinline__ void scatter(const T* grad, const Vector<T, V>& first_grad, const T* value,
                                        const Sample<Acc<T>>& sample, int lane, const Sizes& n, Acc<T>* grad_value,
                                        Acc<T> (&products)[4]) {
  using A = Acc<T>;
  for (int d = lane * V; d < n.D; d += G * V) {
    const auto upper = d == lane * V ? first_grad : Vector<T, V>::load(grad + d);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if (!sample.inside(k)) continue;
      const int64_t place = sample.corner(k) * n.H * n.D + d;
      const auto pixel = Vector<T, V>::load(value + place);
      const A share = sample.weight * sample.share(k);
      A part[V];
#pragma unroll
      for (int i = 0; i < V; ++i) {
        products[k] += A(upper.x[i]) * A(pixel.x[i]);
        part[i] = share * A(upper.x[i]);
      }
      add(grad_value + place, part);
    }
  }
}

template <typename T, int V, int G>
__global__ void __launch_bounds__(THREADS)
    backward(const T* grad, const T* value, const __grid_constant__ Levels levels, const Acc<T>* locations,
             const Acc<T>* weights, Acc<T>* grad_value, Acc<T>* grad_locations, Acc<T>* grad_weights, const Sizes n) {
  using A = Acc<T>;
  const int lane = threadIdx.x % G, samples = n.L * n.P;
  const int64_t items = n.B * n.Q * n.H, step = int64_t(gridDim.x) * (THREADS / G);
  for (int64_t first = int64_t(blockIdx.x) * (THREADS / G); first < items; first += step) {
    const Item item(first + threadIdx.x / G, items);
    const int64_t offset = item.value_offset(n), base = item.index * samples;
    const T* own_grad = grad + item.index * n.D;
    Vector<T, V> first_grad{};
    if (lane * V < n.D) first_grad = Vector<T, V>::load(own_grad + lane * V);
    for (int s = 0; s < samples; s += G) {
      const Sample<A> own = read_sample(locations + 2 * base, weights + base, s + lane, levels, n);
      A to_weight = 0, to_column = 0, to_row = 0;  // gradients of the own sample's weight, column and row
      for (int j = 0; j < min(G, samples - s); ++j) {
        const Sample<A> sample = share_sample<G>(own, j);
        A products[4] = {}, weighted = 0;
        if (item.active)
          scatter<T, V, G>(own_grad, first_grad, value + offset, sample, lane, n, grad_value + offset, products);
#pragma unroll
        for (int k = 0; k < 4; ++k) weighted += sample.share(k) * products[k];
        const A top = products[1] - products[0], bottom = products[3] - products[2];
        const A left = products[2] - products[0], right = products[3] - products[1];
        weighted = sum_over(weighted, G, WHOLE_WARP);
        const A along_row = sum_over(top + sample.bottom * (bottom - top), G, WHOLE_WARP);
        const A along_column = sum_over(left + sample.right * (right - left), G, WHOLE_WARP);
        if (j == lane) to_weight = weighted, to_column = along_row, to_row = along_column;
      }
      if (!item.active || s + lane >= samples) continue;
      const int l = (s + lane) / n.P;
      const int64_t place = base + s + lane;
      grad_weights[place] = to_weight + own.lost;
      // nothing was seen where a number is lost, and NaN times zero would spoil the gradients of an empty level
      const bool seen = own.packed != 0;
      grad_locations[2 * place] = seen ? own.weight * A(levels.w[l]) * to_column : own.poison;
      grad_locations[2 * place + 1] = seen ? own.weight * A(levels.h[l]) * to_row : own.poison;
    }
  }
}

// Calls run.template operator()<V, G>() with what suits D channels of type T.
template <typename T, typename Run>
int with_lanes(int D, bool aligned, const Run& run) {
  constexpr int V = LOAD_BYTES / sizeof(T);
  if (D % V || !aligned) return run(std::integral_constant<int, 1>(), std::integral_constant<int, 32>());
  const std::integral_constant<int, V> vector;
  if (D <= 4 * V) return run(vector, std::integral_constant<int, 4>());
  if (D <= 8 * V) return run(vector, std::integral_constant<int, 8>());
  if (D <= 16 * V) return run(vector, std::integral_constant<int, 16>());
  return run(vector, std::integral_constant<int, 32>());
}

int64_t blocks_for(const Sizes& n, int lanes) {
  const int64_t per_block = THREADS / lanes;
  return (n.B * n.Q * n.H + per_block - 1) / per_block;
}

template <typename T>
int run_forward(const T* value, const int64_t* shapes, const Acc<T>* locations, const Acc<T>* weights, T* out,
                const Sizes& n, void* stream) {
  Levels levels{};
  if (!levels.read(shapes, n.L, n.S)) return cudaErrorInvalidValue;
  return with_lanes<T>(n.D, is_aligned(value) && is_aligned(out), [&](auto v, auto g) {
    return launch(forward<T, v(), g()>, blocks_for(n, g()), THREADS, 0, stream, value, levels, locations, weights, out,
                  n);
  });
}

template <typename T>
int run_backward(const T* grad, const T* value, const int64_t* shapes, const Acc<T>* locations, const Acc<T>* weights,
                 Acc<T>* grad_value, Acc<T>* grad_locations, Acc<T>* grad_weights, const Sizes& n, void* stream) {
  Levels levels{};
  if (!levels.read(shapes, n.L, n.S)) return cudaErrorInvalidValue;
  const bool aligned = is_aligned(value) && is_aligned(grad) && is_aligned(grad_value);
  return with_lanes<T>(n.D, aligned, [&](auto v, auto g) {
    return launch(backward<T, v(), g()>, blocks_for(n, g()), THREADS, 0, stream, grad, value, levels, locations,
                  weights, grad_value, grad_locations, grad_weights, n);
  });
}

}  // namespace
}  // namespace m2f

// Shapes as in Python, all contiguous: value [B,S,H,D], shapes [L,2] (h, w) on the host, locations [B,Q,H,L,P,2],
// weights [B,Q,H,L,P], out and grad [B,Q,H,D]; grad_value is zero when called, other results are overwritten.
#define M2F_MS_DEFORM_ATTN(T, SUFFIX)                                                                                 \
  M2F_EXPORT int m2f_ms_deform_attn_forward_##SUFFIX(                                                                 \
      const T* value, const int64_t* shapes, const m2f::Acc<T>* locations, const m2f::Acc<T>* weights, T* out,        \
      int64_t B, int64_t S, int64_t H, int64_t D, int64_t Q, int64_t L, int64_t P, void* stream) {                    \
    return m2f::run_forward<T>(value, shapes, locations, weights, out, {B, S, Q, int(H), int(D), int(L), int(P)},     \
                               stream);                                                                               \
  }                                                                                                                   \
  M2F_EXPORT int m2f_ms_deform_attn_backward_##SUFFIX(                                                                \
      const T* grad, const T* value, const int64_t* shapes, const m2f::Acc<T>* locations, const m2f::Acc<T>* weights, \
      m2f::Acc<T>* grad_value, m2f::Acc<T>* grad_locations, m2f::Acc<T>* grad_weights, int64_t B, int64_t S,          \
      int64_t H, int64_t D, int64_t Q, int64_t L, int64_t P, void* stream) {                                          \
    return m2f::run_backward<T>(grad, value, shapes, locations, weights, grad_value, grad_locations, grad_weights,    \
                                {B, S, Q, int(H), int(D), int(L), int(P)}, stream);                                   \
  }

M2F_MS_DEFORM_ATTN(float, f32)
M2F_MS_DEFORM_ATTN(double, f64)
M2F_MS_DEFORM_ATTN(__half, f16)
M2F_MS_DEFORM_ATTN(__nv_bfloat16, bf16)
