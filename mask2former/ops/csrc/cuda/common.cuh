// What the CUDA sources share. They are plain enough for a C++ compiler with stand-ins for CUDA's headers:
// tests/ops/cuda_emulation runs the kernels on a CPU.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <climits>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#define M2F_EXPORT extern "C" __attribute__((visibility("default")))

extern __shared__ __align__(16) unsigned char m2f_shared[];

namespace m2f {

// What numbers of a type are added in, and what locations, weights and tables come as.
template <typename T>
struct Accumulator {
  using type = float;
};
template <>
struct Accumulator<double> {
  using type = double;
};
template <typename T>
using Acc = typename Accumulator<T>::type;

// V numbers that are read or written by one instruction, 16 bytes at most.
template <typename T, int V>
struct alignas(sizeof(T) * V) Vector {
  T x[V];

  static __device__ __forceinline__ Vector load(const T* from) { return *reinterpret_cast<const Vector*>(from); }
  __device__ __forceinline__ void store(T* to) const { *reinterpret_cast<Vector*>(to) = *this; }
};

constexpr int LOAD_BYTES = 16;
constexpr unsigned WHOLE_WARP = 0xffffffffu;

inline bool is_aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % LOAD_BYTES == 0; }

// The sum over `lanes` (a power of two) neighbouring threads; all threads of `mask` must come here.
template <typename A>
__device__ __forceinline__ A sum_over(A x, int lanes, unsigned mask) {
  for (int distance = lanes / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(mask, x, distance);
  return x;
}

// Start a kernel whose blocks take tasks blockIdx.x, blockIdx.x + gridDim.x, ...; returns a cudaError_t.
template <typename... Parameters, typename... Arguments>
int launch(void (*kernel)(Parameters...), int64_t tasks, int threads, size_t shared_bytes, void* stream,
           Arguments... arguments) {
  if (tasks == 0) return cudaSuccess;
  if (shared_bytes > 48 * 1024) {  // more than that has to be asked for
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes));
    if (const int error = cudaGetLastError()) return error;
  }
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(unsigned(std::min<int64_t>(tasks, INT_MAX)));
  config.blockDim = dim3(unsigned(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream);
  cudaLaunchKernelEx(&config, kernel, arguments...);
  return cudaGetLastError();  // which also forgets it
}

}  // namespace m2f
