// Multi-scale deformable attention: what forward and backward share.
// B batch, S pixels of all levels, H heads, D channels per head, Q queries, L levels, P points
#pragma once

#include "common.h"

namespace m2f {

struct Sizes {
  int64_t B, S, H, D, Q, L, P;
};

// One level of value [B,S,H,D]: h rows of w pixels from pixel `start`.
struct Level {
  int64_t h, w, start;
};

// The four pixels around a location and their shares; a pixel outside the level has no place.
template <typename T>
struct Corners {
  int64_t offset[4];  // elements from the level's first pixel: top left, top right, bottom left, bottom right
  bool inside[4];
  T left, right, top, bottom;  // shares of the columns and rows; left + right = top + bottom = 1

  bool all_inside() const { return inside[0] && inside[3]; }
  T share(int k) const { return (k & 1 ? right : left) * (k & 2 ? bottom : top); }
};

// Find the corners of location (x, y) in [0,1], where pixel centres are at (i + 0.5) / size.
// False where no pixel is inside, and for NaN: comparisons with it are false, and no index is made of it.
template <typename T>
inline bool find_corners(T x, T y, const Level& level, int64_t pixel_stride, Corners<T>& corners) {
  const T column = x * T(level.w) - T(0.5), row = y * T(level.h) - T(0.5);
  if (!(column >= T(-1) && column < T(level.w) && row >= T(-1) && row < T(level.h))) return false;
  int64_t x0 = int64_t(column), y0 = int64_t(row);  // truncated, and lowered where that was upwards
  x0 -= T(x0) > column;
  y0 -= T(y0) > row;
  corners.right = column - T(x0);
  corners.left = T(1) - corners.right;
  corners.bottom = row - T(y0);
  corners.top = T(1) - corners.bottom;
  const bool left_in = x0 >= 0, right_in = x0 + 1 < level.w, top_in = y0 >= 0, bottom_in = y0 + 1 < level.h;
  corners.inside[0] = top_in && left_in;
  corners.inside[1] = top_in && right_in;
  corners.inside[2] = bottom_in && left_in;
  corners.inside[3] = bottom_in && right_in;
  corners.offset[0] = (y0 * level.w + x0) * pixel_stride;
  corners.offset[1] = corners.offset[0] + pixel_stride;
  corners.offset[2] = corners.offset[0] + level.w * pixel_stride;
  corners.offset[3] = corners.offset[2] + pixel_stride;
  return true;
}

}  // namespace m2f
