#include "common.cuh"

M2F_EXPORT const char* m2f_error(int status) { return cudaGetErrorString(static_cast<cudaError_t>(status)); }
