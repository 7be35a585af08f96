"""The compiled neighbourhood attention reads and writes nothing that is not its own."""

import pytest

from mask2former.ops import build

# Every array has a block of the heap of its own and no spare element, so that the sanitizer sees any step beside it.
DRIVER = """
#include <cstdio>
#include <vector>
#include "neighborhood_attn.cpp"

template <typename T, typename F, typename G>
void run(F forward, G backward, const int64_t* n, int64_t threads, bool biased, T odd) {
  const int64_t B = n[0], N = n[1], H = n[2], W = n[3], D = n[4], k = n[5], dilation = n[6];
  const int64_t size = B * N * H * W * D, table = N * (2 * k - 1) * (2 * k - 1);
  std::vector<std::vector<T>> maps(8, std::vector<T>(size, T(0.5)));
  for (int64_t i = 0; i < size; i += 7) maps[i % 3][i] = odd;
  std::vector<T> lse(B * N * H * W), rpb(table, T(1)), grad_rpb(table);
  std::vector<int64_t> strides;
  for (int i = 0; i < 8; ++i) strides.insert(strides.end(), {N * H * W * D, H * W * D, W * D, D});
  const T* bias = biased ? rpb.data() : nullptr;
  T* m[8];
  for (int i = 0; i < 8; ++i) m[i] = maps[i].data();
  int bad = forward(m[0], m[1], m[2], m[3], strides.data(), bias, lse.data(), B, N, H, W, D, k, dilation, 0.3, threads);
  bad += backward(m[0], m[1], m[2], m[3], m[4], m[5], m[6], m[7], strides.data(), bias, lse.data(),
                  biased ? grad_rpb.data() : nullptr, B, N, H, W, D, k, dilation, 0.3, threads);
  if (bad) std::printf("status of %d\\n", int(k));
}

int main() {
  const int64_t cases[][7] = {
      {1, 2, 7, 7, 3, 7, 1},  {2, 1, 9, 70, 32, 5, 1}, {1, 1, 1, 1, 1, 1, 1}, {1, 1, 4, 3, 9, 3, 3},
      {1, 1, 23, 140, 8, 11, 1}, {1, 2, 14, 15, 5, 3, 4}, {0, 2, 5, 5, 4, 3, 1}, {1, 1, 0, 5, 4, 3, 1},
      {1, 1, 5, 5, 0, 3, 1},  {1, 1, 29, 8, 32, 13, 1}, {1, 1, 2, 67, 33, 7, 2}};
  for (auto& n : cases)
    for (int64_t threads : {1, 3})
      for (double odd : {0.25, double(NAN), double(INFINITY)}) {
        run<float>(m2f_neighborhood_attention_2d_forward_f32, m2f_neighborhood_attention_2d_backward_f32, n, threads,
                   threads == 1, float(odd));
        run<double>(m2f_neighborhood_attention_2d_forward_f64, m2f_neighborhood_attention_2d_backward_f64, n, threads,
                    threads == 3, odd);
      }
  std::puts("done");
}
"""


@pytest.mark.slow
@pytest.mark.parametrize("target", build.CPU_TARGETS)
def test_sanitizers_find_nothing(target, sanitized):
    """Over odd sizes, empty maps, NaN and infinity."""
    assert sanitized(DRIVER, target) == "done\n"
