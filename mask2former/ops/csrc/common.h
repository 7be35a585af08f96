// What the CPU sources share.
#pragma once

#include <cstdint>

#define M2F_EXPORT extern "C" __attribute__((visibility("default")))

namespace m2f {

enum Status : int { kOk = 0, kBadSize = 1 };

}  // namespace m2f
