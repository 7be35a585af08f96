// Neighbourhood attention on the CPU: what is called from outside. Tasks own what they write; nothing is atomic.
#include "neighborhood_attn_passes.h"
#include "neighborhood_attn_backward.h"

#include <omp.h>

#include <vector>

namespace m2f::neighborhood {
namespace {

bool valid(const Sizes& n) {
  return std::min({n.B, n.N, n.H, n.W, n.D}) >= 0 && n.k >= 1 && n.k % 2 == 1 && n.dilation >= 1;
}

template <typename T>
void forward(const Forward<T>& f, int threads) {
  const int64_t chunks = count_chunks(f.n, threads), tasks = f.n.B * f.n.N * f.n.dilation * f.n.dilation * chunks;
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    ForwardScratch<T> scratch(f.n);
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < tasks; ++i) forward_task(f, Task(f.n, i, chunks), scratch);
  }
}

template <typename T>
void backward(const Backward<T>& f, int threads) {
  const int64_t chunks = count_chunks(f.n, threads), tasks = f.n.B * f.n.N * f.n.dilation * f.n.dilation * chunks;
  const int64_t table = f.n.N * (2 * f.n.k - 1) * (2 * f.n.k - 1);
  std::vector<double> partial(f.rpb ? threads * table : 0);  // [threads,N,2k-1,2k-1]
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    BackwardScratch<T> scratch(f.n);
    double* grad_rpb = f.rpb ? partial.data() + omp_get_thread_num() * table : nullptr;
#pragma omp for schedule(static, 1)  // so that sums do not depend on which thread is faster
    for (int64_t i = 0; i < tasks; ++i) backward_task(f, Task(f.n, i, chunks), scratch, grad_rpb);
  }
  for (int64_t i = 0; f.rpb && i < table; ++i) {
    double sum = 0;
    for (int t = 0; t < threads; ++t) sum += partial[t * table + i];
    f.grad_rpb[i] = T(sum);
  }
}

}  // namespace
}  // namespace m2f::neighborhood

// Tensors [B,N,H,W,D] have their channels side by side; strides [*,4] are those of B, N, H and W of the tensors before
// it, in their order. rpb [N,2k-1,2k-1] may be null. lse [B,N,H,W]: logarithm of the sum of a query's exponentials.
// The gradients of q, k and v are zero when called; other results are overwritten.
#define M2F_NEIGHBORHOOD_ATTENTION(T, SUFFIX)                                                                         \
  M2F_EXPORT int m2f_neighborhood_attention_2d_forward_##SUFFIX(                                                      \
      const T* q, const T* k, const T* v, T* out, const int64_t* strides, const T* rpb, T* lse, int64_t B, int64_t N, \
      int64_t H, int64_t W, int64_t D, int64_t kernel, int64_t dilation, double scale, int64_t threads) {             \
    const m2f::neighborhood::Sizes n{B, N, H, W, D, kernel, dilation};                                                \
    if (!m2f::neighborhood::valid(n) || threads < 1) return m2f::kBadSize;                                            \
    m2f::neighborhood::forward<T>({q, k, v, rpb, out, lse, strides, n, T(scale)}, int(threads));                      \
    return m2f::kOk;                                                                                                  \
  }                                                                                                                   \
  M2F_EXPORT int m2f_neighborhood_attention_2d_backward_##SUFFIX(                                                     \
      const T* q, const T* k, const T* v, const T* out, const T* grad, T* grad_q, T* grad_k, T* grad_v,               \
      const int64_t* strides, const T* rpb, const T* lse, T* grad_rpb, int64_t B, int64_t N, int64_t H, int64_t W,    \
      int64_t D, int64_t kernel, int64_t dilation, double scale, int64_t threads) {                                   \
    const m2f::neighborhood::Sizes n{B, N, H, W, D, kernel, dilation};                                                \
    if (!m2f::neighborhood::valid(n) || threads < 1) return m2f::kBadSize;                                            \
    m2f::neighborhood::backward<T>(                                                                                   \
        {q, k, v, out, grad, rpb, lse, grad_q, grad_k, grad_v, grad_rpb, strides, n, T(scale)}, int(threads));        \
    return m2f::kOk;                                                                                                  \
  }

M2F_NEIGHBORHOOD_ATTENTION(float, f32)
M2F_NEIGHBORHOOD_ATTENTION(double, f64)
