// Neighbourhood attention on a GPU: which pixels belong together, and how they come through shared memory.
//
// Pixels that are a multiple of the dilation apart, in rows and in columns, form a group. Inside a group attention has
// no dilation. A block works on a tile of one group; `lanes` neighbouring threads work on one of its pixels, each on
// CHANNELS channels.
// B batch, N heads, H W pixels, D channels per head, k kernel size
#pragma once

#include "common.cuh"

namespace m2f::neighborhood {

constexpr int CHANNELS = 16;
constexpr int MAX_CHANNELS = 256;
constexpr int MAX_THREADS = 256;  // more would have too few registers each

inline int lanes_for(int D) {
  int lanes = 1;
  while (lanes * CHANNELS < D) lanes *= 2;
  return lanes;
}

// Rows or columns of a group. Maps smaller than k * dilation go on as zeros: there length is more than real.
struct Axis {
  int k, length, real;

  __device__ Axis(int64_t size, int k, int dilation, int group)
      : k(k), length(count(max(size, int64_t(k) * dilation), dilation, group)), real(count(size, dilation, group)) {}

  // First of the k keys that a query sees: centred, and shifted inwards near a border.
  __device__ __forceinline__ int start(int query) const { return max(0, min(query - k / 2, length - k)); }

  // The queries that see a key are those from first_query to before end_query.
  __device__ __forceinline__ int first_query(int key) const { return key < k ? 0 : key - k / 2; }
  __device__ __forceinline__ int end_query(int key) const {
    return min(real, key >= length - k ? length : key + k / 2 + 1);
  }

 private:
  static __device__ __forceinline__ int count(int64_t size, int dilation, int group) {
    return size <= group ? 0 : int((size - group + dilation - 1) / dilation);
  }
};

struct Sizes {
  int64_t B, N, H, W;
  int D, k, dilation;
  int lanes, edge;  // threads of a pixel, pixels along an edge of a tile

  Sizes(int64_t B, int64_t N, int64_t H, int64_t W, int64_t D, int64_t k, int64_t dilation)
      : B(B),
        N(N),
        H(H),
        W(W),
        D(int(D)),
        k(int(k)),
        dilation(int(dilation)),
        lanes(lanes_for(int(D))),
        edge(lanes * 64 <= MAX_THREADS ? 8 : 4) {}

  bool valid() const { return D <= MAX_CHANNELS && k >= 1 && k % 2 == 1 && dilation >= 1; }
  int threads() const { return lanes * edge * edge; }
  __host__ __device__ int64_t tiles(int64_t size) const {  // of the largest group
    return ((size + dilation - 1) / dilation + edge - 1) / edge;
  }
  __host__ __device__ int64_t tasks() const { return B * N * dilation * dilation * tiles(H) * tiles(W); }
  __host__ __device__ int table() const { return (2 * k - 1) * (2 * k - 1); }  // entries of rpb of one head
};

// A tensor [B,N,H,W,D] whose channels lie side by side.
template <typename T>
struct View {
  T* data;
  int64_t b, n, y, x;  // elements from one image, head, row and column to the next

  View(T* data, const int64_t* strides) : data(data), b(strides[0]), n(strides[1]), y(strides[2]), x(strides[3]) {}
};

// What a block works on: one tile of one group of one head of one image.
struct Task {
  int64_t b, n;
  int group_y, group_x, edge, y, x;  // y, x: of the tile's first pixel, in the group
  Axis rows, columns;

  __device__ Task(const Sizes& n, int64_t index)
      : b(index / (n.tasks() / n.B)),
        n(index / (n.tasks() / n.B / n.N) % n.N),
        group_y(int(index / (n.tiles(n.H) * n.tiles(n.W) * n.dilation) % n.dilation)),
        group_x(int(index / (n.tiles(n.H) * n.tiles(n.W)) % n.dilation)),
        edge(n.edge),
        y(int(index / n.tiles(n.W) % n.tiles(n.H)) * edge),
        x(int(index % n.tiles(n.W)) * edge),
        rows(n.H, n.k, n.dilation, group_y),
        columns(n.W, n.k, n.dilation, group_x) {}

  __device__ __forceinline__ bool empty() const { return y >= rows.real || x >= columns.real; }
  __device__ __forceinline__ int end_y() const { return min(y + edge, rows.real); }
  __device__ __forceinline__ int end_x() const { return min(x + edge, columns.real); }

  // A pixel's place in [B,N,H,W].
  __device__ __forceinline__ int64_t place(const Sizes& n, int row, int column) const {
    return ((b * n.N + this->n) * n.H + int64_t(row) * n.dilation + group_y) * n.W + int64_t(column) * n.dilation +
           group_x;
  }
};

// Channels of the pixels of one image, head and group.
template <typename T>
struct Plane {
  T* data;
  int64_t y, x;

  __device__ Plane(const View<T>& view, const Task& task, int dilation)
      : data(view.data + task.b * view.b + task.n * view.n + task.group_y * view.y + task.group_x * view.x),
        y(view.y * dilation),
        x(view.x * dilation) {}

  __device__ __forceinline__ T* at(int row, int column) const { return data + row * y + column * x; }
};

struct Range {
  int begin, end;
  __device__ __forceinline__ int size() const { return end - begin; }
};

// The thread's place in its block, and its CHANNELS channels of a pixel.
struct Thread {
  int lanes, lane, y, x;
  unsigned mask;  // the lanes of its pixel

  __device__ explicit Thread(const Sizes& n)
      : lanes(n.lanes),
        lane(threadIdx.x % lanes),
        y(threadIdx.x / lanes / n.edge),
        x(threadIdx.x / lanes % n.edge),
        mask(((1u << lanes) - 1) << (threadIdx.x % 32 / lanes * lanes)) {}

  template <typename T>
  __device__ __forceinline__ void read(const T* pixel, int D, Acc<T> factor, Acc<T> (&to)[CHANNELS]) const {
#pragma unroll
    for (int c = 0; c < CHANNELS; ++c)
      to[c] = lane * CHANNELS + c < D ? Acc<T>(pixel[lane * CHANNELS + c]) * factor : Acc<T>(0);
  }

  template <typename T>
  __device__ __forceinline__ void write(T* pixel, int D, Acc<T> factor, const Acc<T> (&from)[CHANNELS]) const {
#pragma unroll
    for (int c = 0; c < CHANNELS; ++c)
      if (lane * CHANNELS + c < D) pixel[lane * CHANNELS + c] = T(from[c] * factor);
  }

  // The dot product of two pixels, of which one is in shared memory.
  template <typename A>
  __device__ __forceinline__ A dot(const A (&a)[CHANNELS], const A* pixel) const {
    constexpr int V = LOAD_BYTES / sizeof(A);
    A sum = 0;
#pragma unroll
    for (int c = 0; c < CHANNELS; c += V) {
      const auto b = Vector<A, V>::load(pixel + lane * CHANNELS + c);
#pragma unroll
      for (int i = 0; i < V; ++i) sum += a[c + i] * b.x[i];
    }
    return sum_over(sum, lanes, mask);
  }

  // sum += factor * a pixel in shared memory
  template <typename A>
  __device__ __forceinline__ void add(A factor, const A* pixel, A (&sum)[CHANNELS]) const {
    constexpr int V = LOAD_BYTES / sizeof(A);
#pragma unroll
    for (int c = 0; c < CHANNELS; c += V) {
      const auto b = Vector<A, V>::load(pixel + lane * CHANNELS + c);
#pragma unroll
      for (int i = 0; i < V; ++i) sum[c + i] += factor * b.x[i];
    }
  }
};

// Shared memory for some rows of two planes.
template <typename A>
struct Strip {
  int rows, columns, stride;  // stride: from one pixel to the next, such that neighbours lie in different banks

  Strip(const Sizes& n, int most_columns)
      : columns(most_columns), stride(n.lanes * CHANNELS + LOAD_BYTES / int(sizeof(A))) {
    const int64_t row_bytes = int64_t(columns) * stride * 2 * sizeof(A);
    rows = int(std::max<int64_t>(1, BYTES / row_bytes));
  }

  size_t bytes() const { return size_t(rows) * columns * stride * 2 * sizeof(A); }

 private:
  static constexpr int64_t BYTES = 32 * 1024;  // leaves room for several blocks, and for the table of rpb
};

// Copy a range of a group's pixels to shared memory, padded with zeros in both directions.
template <typename T>
__device__ __forceinline__ void load(const Plane<const T>& from, const Task& task, Range rows, Range columns, int D,
                                     int stride, int width, Acc<T>* to) {
  const int channel = threadIdx.x % width;
  for (int i = threadIdx.x / width; i < rows.size() * columns.size(); i += blockDim.x / width) {
    const int row = rows.begin + i / columns.size(), column = columns.begin + i % columns.size();
    const bool real = channel < D && row < task.rows.real && column < task.columns.real;
    to[i * stride + channel] = real ? Acc<T>(from.at(row, column)[channel]) : Acc<T>(0);
  }
}

// All rows and columns of two planes come through shared memory; each thread calls f(row, column, pixel of a, pixel of
// b) for those in its own range, from the column own_columns.begin + turn on, then those before.
template <typename T, typename F>
__device__ __forceinline__ void walk(const Plane<const T>& a, const Plane<const T>& b, const Task& task, Range rows,
                                     Range columns, Range own_rows, Range own_columns, int turn, int D,
                                     const Strip<Acc<T>>& strip, const F& f) {
  const int width = strip.stride - LOAD_BYTES / int(sizeof(Acc<T>));
  Acc<T>* first = reinterpret_cast<Acc<T>*>(m2f_shared);
  Acc<T>* second = first + strip.rows * strip.columns * strip.stride;
  for (int top = rows.begin; top < rows.end; top += strip.rows) {
    const Range part{top, min(top + strip.rows, rows.end)};
    __syncthreads();  // nobody reads the previous rows any more
    load(a, task, part, columns, D, strip.stride, width, first);
    load(b, task, part, columns, D, strip.stride, width, second);
    __syncthreads();
    for (int row = max(part.begin, own_rows.begin); row < min(part.end, own_rows.end); ++row) {
      for (int i = 0; i < own_columns.size(); ++i) {
        int column = own_columns.begin + i + turn;
        if (column >= own_columns.end) column -= own_columns.size();
        const int place = ((row - top) * columns.size() + column - columns.begin) * strip.stride;
        f(row, column, first + place, second + place);
      }
    }
  }
}

}  // namespace m2f::neighborhood
