// Stand-in for CUDA's header of this name: compiles the .cu files with g++ and runs their kernels on a CPU.
//
// Every thread of a block is a coroutine with its own stack; barriers and shuffles are where they take turns. Blocks
// run one after the other, threads in an order that changes with every round, so that a missing barrier changes
// numbers. Shared memory holds NaN when a block starts. A block whose threads wait for each other forever aborts.
#pragma once

#include <math.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __shared__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

using std::max;
using std::min;

struct dim3 {
  unsigned x, y = 1, z = 1;
  dim3(unsigned x = 1) : x(x) {}
};
using cudaStream_t = struct CUstream_st*;
inline dim3 threadIdx, blockIdx, blockDim, gridDim;

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9 };
inline const char* cudaGetErrorString(cudaError_t error) { return error ? "invalid argument" : "no error"; }

inline unsigned char m2f_shared[1 << 18] __align__(16);  // bytes of dynamic shared memory; Hopper has 227 KiB

namespace emulation {

constexpr int WARP = 32, MAX_THREADS = 1024;
constexpr size_t STACK = 128 << 10, MAX_SHARED = 227 << 10;

inline cudaError_t last_error = cudaSuccess;

// Where threads meet: those of a block, or those of one mask of a warp.
struct Meeting {
  int arrived = 0;
  int64_t round = 0;
  double slots[2][WARP];
};

struct Block {
  std::vector<ucontext_t> contexts;
  std::vector<std::unique_ptr<char[]>> stacks;
  std::vector<char> done;
  std::map<std::pair<int, unsigned>, Meeting> meetings;  // by warp and mask; the block's own is warp -1
  std::function<void()> kernel;
  ucontext_t scheduler;
  int current = 0;
  bool progress = false;
};
inline Block block;

inline void yield() {
  const int me = block.current;
  swapcontext(&block.contexts[me], &block.scheduler);
}

inline void meet(Meeting& meeting, int expected) {
  block.progress = true;
  const int64_t round = meeting.round;
  if (++meeting.arrived == expected) {
    meeting.arrived = 0;
    ++meeting.round;
  } else {
    while (meeting.round == round) yield();
    block.progress = true;
  }
}

inline void enter() {
  block.kernel();
  block.done[block.current] = 1;
  block.progress = true;
  yield();
}

inline void run_block(int threads) {
  for (size_t i = 0; i + 4 <= sizeof(m2f_shared); i += 4) memset(m2f_shared + i, 0xff, 4);
  block.meetings.clear();
  block.contexts.resize(threads);
  block.done.assign(threads, 0);
  while (int(block.stacks.size()) < threads) block.stacks.emplace_back(new char[STACK]);
  for (int i = 0; i < threads; ++i) {
    getcontext(&block.contexts[i]);
    block.contexts[i].uc_stack.ss_sp = block.stacks[i].get();
    block.contexts[i].uc_stack.ss_size = STACK;
    makecontext(&block.contexts[i], enter, 0);
  }
  for (int round = 0; std::count(block.done.begin(), block.done.end(), 0); ++round) {
    block.progress = false;
    for (int i = 0; i < threads; ++i) {
      block.current = round % 2 ? threads - 1 - i : i;
      threadIdx.x = unsigned(block.current);
      if (!block.done[block.current]) swapcontext(&block.scheduler, &block.contexts[block.current]);
    }
    if (!block.progress) {
      fprintf(stderr, "threads of block %u wait for each other forever\n", blockIdx.x);
      abort();
    }
  }
}

template <typename T>
T shuffle(unsigned mask, T x, int from) {
  static_assert(sizeof(T) <= sizeof(double));
  const int lane = int(threadIdx.x) % WARP;
  if (!(mask >> lane & 1) || !(mask >> from & 1)) {
    fprintf(stderr, "a shuffle from lane %d to lane %d, not both of mask %08x\n", from, lane, mask);
    abort();
  }
  Meeting& meeting = block.meetings[{int(threadIdx.x) / WARP, mask}];
  double* slots = meeting.slots[meeting.round % 2];
  memcpy(&slots[lane], &x, sizeof(T));
  meet(meeting, __builtin_popcount(mask));
  T result;
  memcpy(&result, &slots[from], sizeof(T));
  return result;
}

}  // namespace emulation

inline void __syncthreads() { emulation::meet(emulation::block.meetings[{-1, 0}], int(blockDim.x)); }

template <typename T>
T __shfl_sync(unsigned mask, T x, int from, int width = 32) {
  const int lane = int(threadIdx.x) % emulation::WARP;
  return emulation::shuffle(mask, x, lane / width * width + from % width);
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T x, int distance) {
  return emulation::shuffle(mask, x, int(threadIdx.x) % emulation::WARP ^ distance);
}

template <typename T>
T atomicAdd(T* to, T x) {
  const T old = *to;
  *to += x;
  return old;
}

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };

template <typename Kernel>
void cudaFuncSetAttribute(Kernel, cudaFuncAttribute, int bytes) {
  if (size_t(bytes) > emulation::MAX_SHARED) emulation::last_error = cudaErrorInvalidValue;
}

inline cudaError_t cudaGetLastError() { return std::exchange(emulation::last_error, cudaSuccess); }

// At most $M2F_EMULATED_BLOCKS blocks (default 7), so that blocks have several tasks as on a GPU with too few of them.
template <typename... P, typename... A>
void cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(P...), A... arguments) {
  using namespace emulation;
  if (config->blockDim.x > MAX_THREADS || config->blockDim.x % WARP || config->dynamicSmemBytes > MAX_SHARED) {
    last_error = cudaErrorInvalidConfiguration;
    return;
  }
  const char* most = getenv("M2F_EMULATED_BLOCKS");
  gridDim.x = min(config->gridDim.x, unsigned(most ? atoi(most) : 7));
  blockDim = config->blockDim;
  block.kernel = [=] { kernel(arguments...); };
  for (blockIdx.x = 0; blockIdx.x < gridDim.x; ++blockIdx.x) run_block(int(blockDim.x));
}
