"""Compiled group norm of channels-last maps against PyTorch's in double precision."""

import pytest
import torch
import torch.nn.functional as F

from mask2former.ops import build, group_norm

pytestmark = pytest.mark.skipif(build.library("cpu") is None, reason="no C++ compiler")

# N, C, H, W and groups: one pixel; fewer channels than a vector has; many images; blocks and parts that do not divide
SIZES = [(1, 4, 1, 1, 2), (2, 6, 9, 7, 3), (3, 40, 5, 3, 5), (1, 64, 129, 67, 32), (2, 9001, 2, 3, 1)]
# of results and gradients, relative to the largest: some units in the last place
CLOSE = {torch.float32: 1e-6, torch.float64: 1e-13}


def maps(*shape, dtype=torch.float32, seed=0):
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn.to(dtype).contiguous(memory_format=torch.channels_last)


def inputs(n, c, h, w, dtype):
    weight, bias = torch.randn(2, c, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
    return maps(n, c, h, w, dtype=dtype), weight, bias


def forward(x, groups, weight, bias, *, relu=False, coarser=None, in_place=False):
    of_groups = group_norm.statistics(x, groups, 1e-5)
    out = x if in_place else torch.full_like(x, torch.nan)
    return group_norm.apply(x, of_groups, weight, bias, relu=relu, coarser=coarser, out=out)


def exact(x, groups, weight, bias):
    """Leaves in double precision, and the result."""
    leaves = [t.double().detach().requires_grad_() for t in (x, weight, bias)]
    return leaves, F.group_norm(leaves[0], groups, *leaves[1:])


def assert_close(found, wanted, tolerance):
    assert found.shape == wanted.shape
    assert (found.double() - wanted).abs().max() <= tolerance * wanted.abs().max().clamp_min(1)


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(("n", "c", "h", "w", "groups"), SIZES)
def test_results_and_gradients(n, c, h, w, groups, relu, dtype):
    arguments = inputs(n, c, h, w, dtype)
    leaves, wanted = exact(arguments[0], groups, *arguments[1:])
    wanted = wanted.relu() if relu else wanted
    assert_close(forward(arguments[0], groups, *arguments[1:], relu=relu), wanted.detach(), CLOSE[dtype])
    grad, x = maps(n, c, h, w, dtype=dtype, seed=2), arguments[0]
    of_groups = group_norm.statistics(x, groups, 1e-5)
    found = group_norm.backward(grad, x, of_groups, *arguments[1:], relu=relu, out=torch.full_like(x, torch.nan))
    for mine, right in zip(found, torch.autograd.grad(wanted, leaves, grad.double())):
        assert_close(mine, right, CLOSE[dtype] * n * h * w)  # sums over all pixels
    over_itself = group_norm.backward(grad, x, of_groups, *arguments[1:], relu=relu, out=grad)[0]
    assert torch.equal(over_itself, found[0])


@pytest.mark.parametrize("offset", [0.0, 30.0, 1000.0])
def test_maps_far_from_zero(offset):
    """PyTorch's kernel for channels-last maps is off by 2e-4 at 30, and useless at 1000."""
    x, weight, bias = inputs(2, 64, 40, 37, torch.float32)
    x = x + offset + torch.linspace(-1, 1, 40)[:, None]
    _, wanted = exact(x, 8, weight, bias)
    assert_close(forward(x, 8, weight, bias), wanted, 2e-7)


@pytest.mark.parametrize("size", [(4, 3), (9, 7), (1, 1), (5, 14)])
@pytest.mark.parametrize("dtype", CLOSE)
def test_a_coarser_map_is_added(size, dtype):
    x, weight, bias = inputs(2, 12, 9, 7, dtype)
    of_tokens = torch.randn(2, 11 + size[0] * size[1], 12, dtype=dtype)[:, 11:].unflatten(1, size).permute(0, 3, 1, 2)
    for coarser in (of_tokens, of_tokens.contiguous()):
        wanted = F.group_norm(x.double(), 3, weight.double(), bias.double())
        wanted += F.interpolate(coarser.double(), size=(9, 7), mode="bilinear", align_corners=False)
        assert_close(forward(x, 3, weight, bias, coarser=coarser), wanted, CLOSE[dtype])


@pytest.mark.parametrize("coarse", [False, True])
def test_the_result_may_replace_the_maps(coarse):
    x, weight, bias = inputs(2, 12, 9, 7, torch.float32)
    coarser = maps(2, 12, 4, 3, seed=3) if coarse else None
    wanted = forward(x, 3, weight, bias, relu=not coarse, coarser=coarser)
    assert torch.equal(forward(x, 3, weight, bias, relu=not coarse, coarser=coarser, in_place=True), wanted)


def test_threads_change_nothing():
    x, weight, bias = inputs(2, 64, 61, 67, torch.float32)
    grad, before, found = maps(2, 64, 61, 67, seed=2), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            of_groups = group_norm.statistics(x, 8, 1e-5)
            out = torch.empty_like(x)
            found.append([of_groups, *group_norm.backward(grad, x, of_groups, weight, bias, relu=True, out=out)])
    finally:
        torch.set_num_threads(before)
    for others in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], others))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_spoils_its_group_alone(value):
    x, weight, bias = inputs(2, 12, 9, 7, torch.float32)
    x[1, 5, 3, 3] = value
    spoilt = forward(x, 3, weight, bias, relu=True).isnan()
    assert spoilt[1, 4:8].all() and spoilt.sum() == spoilt[1, 4:8].numel()


def test_what_is_served():
    x, weight, bias = inputs(1, 12, 9, 7, torch.float32)
    assert group_norm.served(x, weight, bias)
    assert not group_norm.served(x.contiguous(), weight, bias)
    assert not group_norm.served(x.bfloat16(), weight, bias)
    assert not group_norm.served(x.double(), weight, bias)
    assert not group_norm.served(x.to("meta"), weight, bias)
    assert not group_norm.served(x[:0], weight, bias)
    assert not group_norm.served(x, None, None)


def test_sizes_that_do_not_fit():
    with pytest.raises(RuntimeError, match="sizes"):
        group_norm.statistics(maps(1, 12, 9, 7), 5, 1e-5)
    x, weight, bias = inputs(1, 12, 9, 7, torch.float32)
    with pytest.raises(ValueError, match=r"\[C=12\]"):
        forward(x, 3, weight[1:], bias)
    with pytest.raises(ValueError, match="coarser must be"):
        forward(x, 3, weight, bias, coarser=maps(2, 12, 4, 3))


# Every array is of its size exactly, so that the sanitizer sees any step beside it.
RUN = """
void run(const int64_t* n, int64_t threads, float odd) {
  const int64_t N = n[0], H = n[1], W = n[2], C = n[3], G = n[4], h = n[5], w = n[6], stride = h * w * C + 11;
  std::vector<float> x(N * H * W * C, 0.5), out(x), grad(x), weight(C, 1), bias(C, -0.25), grad_weight(C), grad_bias(C);
  std::vector<float> coarser(N * stride - (N ? 11 : 0), 2);
  std::vector<double> numbers(N * G * 2);
  for (size_t i = 0; i < x.size(); i += 101) x[i] = odd;
  for (size_t i = 5; i < x.size(); i += 103) grad[i] = odd;
  refused += m2f_group_norm_statistics_f32(x.data(), numbers.data(), N, H, W, C, G, 1e-5, threads);
  const auto apply = [&](const float* map, float* to, int relu) {
    refused += m2f_group_norm_apply_f32(x.data(), numbers.data(), weight.data(), bias.data(), map, to, N, H, W, C, G, h,
                                        w, stride, relu, threads);
  };
  const auto backward = [&](float* to, int relu) {
    refused += m2f_group_norm_backward_f32(grad.data(), x.data(), numbers.data(), weight.data(), bias.data(), to,
                                           grad_weight.data(), grad_bias.data(), N, H, W, C, G, relu, threads);
  };
  for (int relu : {0, 1}) {
    apply(nullptr, out.data(), relu);
    backward(out.data(), relu);
  }
  backward(grad.data(), 1);
  apply(coarser.data(), out.data(), 1);  // not both
  apply(coarser.data(), out.data(), 0);
  apply(h % 2 ? coarser.data() : nullptr, x.data(), 0);
}
"""
MAIN = """
int main() {
  // N, H, W, C, G; the coarser map's h and w
  const int64_t cases[][7] = {{1, 1, 1, 4, 2, 1, 1}, {2, 9, 7, 6, 3, 4, 3}, {3, 5, 3, 40, 5, 9, 7},
                              {1, 67, 65, 33, 11, 5, 1}, {2, 2, 3, 9001, 1, 1, 2}, {0, 3, 3, 4, 2, 1, 1},
                              {1, 0, 3, 4, 2, 1, 1}, {1, 3, 0, 4, 2, 1, 1}, {1, 3, 3, 0, 2, 1, 1},
                              {1, 3, 3, 4, 3, 1, 1}};
  for (auto& n : cases)
    for (int64_t threads : {0, 1, 3})
      for (double odd : {0.25, double(NAN), double(INFINITY)}) {
        run(n, threads, float(odd));
        run(n, threads, odd);
      }
  const float one = 1;
  const double numbers[] = {0, 1};
  float out;
  for (int64_t h : {0, 1})  // a coarser map without pixels
    refused += m2f_group_norm_apply_f32(&one, numbers, &one, &one, &one, &out, 1, 1, 1, 1, 1, h, 1 - h, 1, 0, 1);
  refused += m2f_group_norm_statistics_f32(&one, nullptr, 1, 1, 1, 1, 0, 1e-5, 1);
  std::printf("%d\\n", refused);
}
"""
DRIVER = '#include <cstdio>\n#include "group_norm.cpp"\n#include "group_norm_backward.cpp"\nint refused = 0;\n'
DRIVER += RUN + RUN.replace("float", "double").replace("f32", "f64") + MAIN


@pytest.mark.slow
@pytest.mark.parametrize("target", build.CPU_TARGETS)
def test_sanitizers_find_nothing(target, sanitized):
    """Over odd sizes, a coarser map and the result in place, NaN and infinity, and sizes that are refused."""
    calls = 9
    all_refused, one_refused = 10 + 5 * 2, 5 * 2  # cases without threads and with some; relu of what is added to
    refused = (all_refused * calls + one_refused) * 2 * 3 + 3  # dtypes, odd values; the last ones
    assert sanitized(DRIVER, target) == f"{refused}\n"
