// What the CPU sources share.
#pragma once

#include <cstdint>

#define M2F_EXPORT extern "C" __attribute__((visibility("default")))

namespace m2f {

enum Status : int { kOk = 0, kBadSize = 1 };

inline int64_t round_up(int64_t size, int64_t unit) { return (size + unit - 1) / unit * unit; }

}  // namespace m2f
