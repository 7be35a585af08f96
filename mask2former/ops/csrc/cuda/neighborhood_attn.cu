// Neighbourhood attention on a GPU. See mask2former/ops/neighborhood_attn.py for what is computed.
//
// The backward pass computes the attention weights again, twice: threads that own a query sum the gradients of queries
// and of rpb, threads that own a key those of keys and values. So only the small gradient of rpb is added atomically.
#include "neighborhood_attn.cuh"

namespace m2f::neighborhood {
namespace {

template <typename A>
__device__ __forceinline__ A bias_of(const A* rpb, int k, int64_t head, int down, int right) {
  if (rpb == nullptr) return 0;
  const int64_t edge = 2 * k - 1;
  return rpb[(head * edge + down) * edge + right];
}

// All keys that the queries of a tile see.
__device__ __forceinline__ Range keys_of(const Axis& axis, int begin, int end) {
  return {axis.start(begin), axis.start(end - 1) + axis.k};
}

// The softmax is kept up to date key by key: sums are relative to the largest logit so far.
template <typename T>
__global__ void __launch_bounds__(MAX_THREADS)
    forward(View<const T> q, View<const T> k, View<const T> v, View<T> out, const Acc<T>* rpb, Acc<T>* lse,
                        Acc<T> lowest, Acc<T> scale, Strip<Acc<T>> strip, Sizes n) {
  using A = Acc<T>;
  const Thread thread(n);
  for (int64_t index = blockIdx.x; index < n.tasks(); index += gridDim.x) {
    const Task task(n, index);
    if (task.empty()) continue;
    const int y = task.y + thread.y, x = task.x + thread.x;
    const bool active = y < task.end_y() && x < task.end_x();
    const int start_y = task.rows.start(y), start_x = task.columns.start(x);
    A query[CHANNELS], sums[CHANNELS] = {}, largest = lowest, total = 0;
    if (active) thread.read(Plane<const T>(q, task, n.dilation).at(y, x), n.D, scale, query);
    walk(Plane<const T>(k, task, n.dilation), Plane<const T>(v, task, n.dilation), task,
         keys_of(task.rows, task.y, task.end_y()), keys_of(task.columns, task.x, task.end_x()),
         Range{start_y, active ? start_y + n.k : start_y}, Range{start_x, start_x + n.k}, 0, n.D, strip,
         [&](int row, int column, const A* key, const A* value) {
           const A logit = thread.dot(query, key) + bias_of(rpb, n.k, task.n, row - y + n.k - 1, column - x + n.k - 1);
           if (logit > largest) {
             const A shrink = std::exp(largest - logit);
             total *= shrink;
#pragma unroll
             for (int c = 0; c < CHANNELS; ++c) sums[c] *= shrink;
             largest = logit;
           }
           const A weight = std::exp(logit - largest);
           total += weight;
           thread.add(weight, value, sums);
         });
    if (!active) continue;
    thread.write(Plane<T>(out, task, n.dilation).at(y, x), n.D, 1 / total, sums);
    if (thread.lane == 0) lse[task.place(n, y, x)] = largest + std::log(total);
  }
}

// Gradients of queries and of rpb; delta [B,N,H,W]: dot products of out and its gradient.
template <typename T>
__global__ void __launch_bounds__(MAX_THREADS)
    backward_queries(View<const T> q, View<const T> k, View<const T> v, View<const T> grad, View<T> grad_q,
                                 const Acc<T>* rpb, const Acc<T>* lse, const Acc<T>* delta, Acc<T>* grad_rpb,
                                 Acc<T> scale, Strip<Acc<T>> strip, Sizes n) {
  using A = Acc<T>;
  const Thread thread(n);
  A* table = reinterpret_cast<A*>(m2f_shared) + 2 * strip.rows * strip.columns * strip.stride;  // [2k-1,2k-1]
  for (int64_t index = blockIdx.x; index < n.tasks(); index += gridDim.x) {
    const Task task(n, index);
    if (task.empty()) continue;
    const int y = task.y + thread.y, x = task.x + thread.x;
    const bool active = y < task.end_y() && x < task.end_x();
    const int start_y = task.rows.start(y), start_x = task.columns.start(x);
    A query[CHANNELS], upper[CHANNELS], sums[CHANNELS] = {}, own_lse = 0, own_delta = 0;
    if (active) {
      thread.read(Plane<const T>(q, task, n.dilation).at(y, x), n.D, scale, query);
      thread.read(Plane<const T>(grad, task, n.dilation).at(y, x), n.D, A(1), upper);
      own_lse = lse[task.place(n, y, x)];
      own_delta = delta[task.place(n, y, x)];
    }
    if (grad_rpb)
      for (int i = threadIdx.x; i < n.table(); i += blockDim.x) table[i] = 0;
    // neighbouring queries begin with different columns, so that they rarely add to one entry of the table at a time
    walk(Plane<const T>(k, task, n.dilation), Plane<const T>(v, task, n.dilation), task,
         keys_of(task.rows, task.y, task.end_y()), keys_of(task.columns, task.x, task.end_x()),
         Range{start_y, active ? start_y + n.k : start_y}, Range{start_x, start_x + n.k},
         grad_rpb ? thread.x % n.k : 0, n.D, strip, [&](int row, int column, const A* key, const A* value) {
           const int down = row - y + n.k - 1, right = column - x + n.k - 1;
           const A logit = thread.dot(query, key) + bias_of(rpb, n.k, task.n, down, right);
           const A grad_logit = std::exp(logit - own_lse) * (thread.dot(upper, value) - own_delta);
           thread.add(grad_logit, key, sums);
           if (grad_rpb && thread.lane == 0) atomicAdd(table + down * (2 * n.k - 1) + right, grad_logit);
         });
    if (active) thread.write(Plane<T>(grad_q, task, n.dilation).at(y, x), n.D, scale, sums);
    if (!grad_rpb) continue;
    __syncthreads();
    for (int i = threadIdx.x; i < n.table(); i += blockDim.x)
      if (table[i] != A(0)) atomicAdd(grad_rpb + task.n * n.table() + i, table[i]);
    __syncthreads();  // before the next task clears it
  }
}

// Gradients of keys and values.
template <typename T>
__global__ void __launch_bounds__(MAX_THREADS)
    backward_keys(View<const T> q, View<const T> k, View<const T> v, View<const T> grad, View<T> grad_k,
                              View<T> grad_v, const Acc<T>* rpb, const Acc<T>* lse, const Acc<T>* delta, Acc<T> scale,
                              Strip<Acc<T>> strip, Sizes n) {
  using A = Acc<T>;
  const Thread thread(n);
  for (int64_t index = blockIdx.x; index < n.tasks(); index += gridDim.x) {
    const Task task(n, index);
    if (task.empty()) continue;
    const int y = task.y + thread.y, x = task.x + thread.x;
    const bool active = y < task.end_y() && x < task.end_x();
    A key[CHANNELS], value[CHANNELS], key_sums[CHANNELS] = {}, value_sums[CHANNELS] = {};
    if (active) {
      thread.read(Plane<const T>(k, task, n.dilation).at(y, x), n.D, scale, key);
      thread.read(Plane<const T>(v, task, n.dilation).at(y, x), n.D, A(1), value);
    }
    const Axis &rows = task.rows, &columns = task.columns;
    const int first_y = rows.first_query(y);
    walk(Plane<const T>(q, task, n.dilation), Plane<const T>(grad, task, n.dilation), task,
         Range{rows.first_query(task.y), rows.end_query(task.end_y() - 1)},
         Range{columns.first_query(task.x), columns.end_query(task.end_x() - 1)},
         Range{first_y, active ? rows.end_query(y) : first_y}, Range{columns.first_query(x), columns.end_query(x)}, 0,
         n.D, strip, [&](int row, int column, const A* query, const A* upper) {
           const int64_t place = task.place(n, row, column);
           const A logit = thread.dot(key, query) + bias_of(rpb, n.k, task.n, y - row + n.k - 1, x - column + n.k - 1);
           const A weight = std::exp(logit - lse[place]);
           thread.add(weight, upper, value_sums);
           thread.add(weight * (thread.dot(value, upper) - delta[place]), query, key_sums);
         });
    if (!active) continue;
    thread.write(Plane<T>(grad_k, task, n.dilation).at(y, x), n.D, scale, key_sums);
    thread.write(Plane<T>(grad_v, task, n.dilation).at(y, x), n.D, A(1), value_sums);
  }
}

template <typename T>
int run_forward(const T* q, const T* k, const T* v, T* out, const int64_t* strides, const Acc<T>* rpb, Acc<T>* lse,
                const Sizes& n, double scale, void* stream) {
  if (!n.valid()) return cudaErrorInvalidValue;
  const Strip<Acc<T>> strip(n, n.edge + n.k - 1);
  const auto lowest = std::numeric_limits<Acc<T>>::lowest();
  return launch(forward<T>, n.tasks(), n.threads(), strip.bytes(), stream, View<const T>(q, strides),
                View<const T>(k, strides + 4), View<const T>(v, strides + 8), View<T>(out, strides + 12), rpb, lse,
                lowest, Acc<T>(scale), strip, n);
}

template <typename T>
int run_backward(const T* q, const T* k, const T* v, const T* grad, T* grad_q, T* grad_k, T* grad_v,
                 const int64_t* strides, const Acc<T>* rpb, const Acc<T>* lse, const Acc<T>* delta, Acc<T>* grad_rpb,
                 const Sizes& n, double scale, void* stream) {
  if (!n.valid()) return cudaErrorInvalidValue;
  const View<const T> queries(q, strides), keys(k, strides + 4), values(v, strides + 8), upper(grad, strides + 12);
  const Strip<Acc<T>> seen(n, n.edge + n.k - 1), seeing(n, n.edge + 2 * (n.k - 1));  // keys, queries
  const size_t table_bytes = grad_rpb ? n.table() * sizeof(Acc<T>) : 0;
  if (const int error = launch(backward_queries<T>, n.tasks(), n.threads(), seen.bytes() + table_bytes, stream, queries,
                               keys, values, upper, View<T>(grad_q, strides + 16), rpb, lse, delta, grad_rpb,
                               Acc<T>(scale), seen, n))
    return error;
  return launch(backward_keys<T>, n.tasks(), n.threads(), seeing.bytes(), stream, queries, keys, values, upper,
                View<T>(grad_k, strides + 20), View<T>(grad_v, strides + 24), rpb, lse, delta, Acc<T>(scale), seeing,
                n);
}

}  // namespace
}  // namespace m2f::neighborhood

// Tensors [B,N,H,W,D] have their channels side by side; strides [*,4], on the host, are those of B, N, H and W of the
// tensors before it, in their order. rpb [N,2k-1,2k-1] may be null, and so may grad_rpb. lse [B,N,H,W]: logarithm of
// the sum of a query's exponentials; delta [B,N,H,W]: dot products of out and its gradient. grad_rpb is zero when
// called; other results are overwritten.
#define M2F_NEIGHBORHOOD_ATTENTION(T, SUFFIX)                                                                         \
  M2F_EXPORT int m2f_neighborhood_attention_2d_forward_##SUFFIX(                                                      \
      const T* q, const T* k, const T* v, T* out, const int64_t* strides, const m2f::Acc<T>* rpb, m2f::Acc<T>* lse,   \
      int64_t B, int64_t N, int64_t H, int64_t W, int64_t D, int64_t kernel, int64_t dilation, double scale,          \
      void* stream) {                                                                                                 \
    return m2f::neighborhood::run_forward<T>(q, k, v, out, strides, rpb, lse,                                         \
                                             {B, N, H, W, D, kernel, dilation}, scale, stream);        \
  }                                                                                                                   \
  M2F_EXPORT int m2f_neighborhood_attention_2d_backward_##SUFFIX(                                                     \
      const T* q, const T* k, const T* v, const T* grad, T* grad_q, T* grad_k, T* grad_v, const int64_t* strides,     \
      const m2f::Acc<T>* rpb, const m2f::Acc<T>* lse, const m2f::Acc<T>* delta, m2f::Acc<T>* grad_rpb, int64_t B,     \
      int64_t N, int64_t H, int64_t W, int64_t D, int64_t kernel, int64_t dilation, double scale, void* stream) {     \
    return m2f::neighborhood::run_backward<T>(q, k, v, grad, grad_q, grad_k, grad_v, strides, rpb, lse, delta,        \
                                              grad_rpb, {B, N, H, W, D, kernel, dilation}, scale,      \
                                              stream);                                                                \
  }

M2F_NEIGHBORHOOD_ATTENTION(float, f32)
M2F_NEIGHBORHOOD_ATTENTION(double, f64)
M2F_NEIGHBORHOOD_ATTENTION(__half, f16)
M2F_NEIGHBORHOOD_ATTENTION(__nv_bfloat16, bf16)
