// Stand-in for CUDA's header of this name.
#pragma once

struct __half {
  _Float16 number;

  __half() = default;
  __half(float x) : number(static_cast<_Float16>(x)) {}
  operator float() const { return static_cast<float>(number); }
};
