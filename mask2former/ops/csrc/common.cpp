#include "common.h"

M2F_EXPORT const char* m2f_error(int status) {
  switch (status) {
    case m2f::kOk: return "no error";
    case m2f::kBadSize: return "sizes do not fit together";
    default: return "unknown error";
  }
}
