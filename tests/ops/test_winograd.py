"""The convolution by Winograd's minimal filtering gives what the direct one gives."""

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from mask2former.ops import backends, build, winograd

needs_compiler = pytest.mark.skipif(build.library("cpu") is None, reason="no C++ compiler")
LAST = torch.channels_last
ONES = (1, 1), (1, 1), (1, 1), 1  # stride, padding, dilation, groups

# N, C, K, H, W: one pixel, odd sizes, several maps, and more tiles than channels as well as fewer
SIZES = [
    (1, 32, 32, 1, 1),
    (1, 64, 32, 2, 7),
    (2, 32, 96, 9, 6),
    (3, 96, 64, 5, 5),
    (1, 32, 64, 40, 43),
    (2, 128, 160, 3, 4),
    (1, 160, 128, 16, 17),
]


def inputs(batch, channels, out_channels, height, width):
    """x, weight, bias, scale and a gradient of the result."""
    generator = torch.Generator().manual_seed(height * width)
    shapes = (
        (batch, channels, height, width),
        (out_channels, channels, 3, 3),
        (out_channels,),
        (out_channels,),
        (batch, out_channels, height, width),
    )
    x, weight, bias, scale, grad = (torch.randn(s, generator=generator) for s in shapes)
    weight /= (9 * channels) ** 0.5
    return (*(t.contiguous(memory_format=LAST) for t in (x, weight)), bias, scale, grad.contiguous(memory_format=LAST))


def directly(x, weight, bias, scale, grad, dtype=torch.float64):
    """The result and the gradients of x and weight."""
    x, weight, bias, scale, grad = (t.to(dtype) for t in (x, weight, bias, scale, grad))
    x.requires_grad_(), weight.requires_grad_()
    out = F.conv2d(x, weight * scale[:, None, None, None], bias, padding=1)
    return (out.detach(), *torch.autograd.grad(out, (x, weight), grad))


def by_winograd(x, weight, bias, scale, grad):
    return (
        winograd.forward(x, weight, bias, scale=scale),
        winograd.input_grad(grad, weight, scale),
        winograd.weight_grad(grad, x, scale),
    )


def error(found, expected):
    """Root of the mean square, relative."""
    return float((found - expected).norm() / expected.norm())


@needs_compiler
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("sizes", SIZES)
def test_results_and_gradients(monkeypatch, sizes, threads):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    tensors = inputs(*sizes)
    for found, expected in zip(by_winograd(*tensors), directly(*tensors)):
        assert found.is_contiguous(memory_format=LAST)
        assert float((found - expected).abs().max()) < 2e-6 * float(expected.abs().max())


@needs_compiler
def test_errors_are_within_twice_those_of_the_direct_convolution():
    """Measured: 0.6, 0.6 and 1.3 times; and not more than float32 has, should a direct one be better elsewhere."""
    tensors = inputs(1, 256, 256, 32, 32)
    expected, direct = directly(*tensors), directly(*tensors, dtype=torch.float32)
    for found, theirs, truth in zip(by_winograd(*tensors), direct, expected):
        assert error(found, truth) < max(2 * error(theirs, truth), 8 * torch.finfo(torch.float32).eps)


@needs_compiler
def test_without_bias_and_scale_and_with_relu():
    x, weight, bias, scale, grad = inputs(2, 32, 64, 6, 5)
    none, one = torch.zeros(64), torch.ones(64)
    out, x_grad, weight_grad = directly(x, weight, none, one, grad)
    close = {"atol": 1e-5, "rtol": 1e-5, "check_dtype": False}
    torch.testing.assert_close(winograd.forward(x, weight), out, **close)
    torch.testing.assert_close(winograd.input_grad(grad, weight), x_grad, **close)
    torch.testing.assert_close(winograd.weight_grad(grad, x), weight_grad, **close)
    expected = directly(x, weight, bias, scale, grad)[0].relu()
    torch.testing.assert_close(winograd.forward(x, weight, bias, True, scale), expected, **close)


@needs_compiler
def test_any_layout_is_taken():
    tensors = inputs(2, 32, 64, 6, 5)
    for found, expected in zip(by_winograd(*(t.contiguous() for t in tensors)), by_winograd(*tensors)):
        assert torch.equal(found, expected)
    x, *_, grad = tensors
    wide = grad[:, :, :1, :1].expand_as(grad)
    torch.testing.assert_close(winograd.weight_grad(wide, x), winograd.weight_grad(wide.clone(), x))


@needs_compiler
def test_results_repeat():
    """To the last bit, for a number of threads, though memory is used again."""
    tensors = inputs(1, 64, 64, 21, 30)
    first = by_winograd(*tensors)
    by_winograd(*inputs(1, 64, 160, 40, 30))
    assert all(map(torch.equal, by_winograd(*tensors), first))


@needs_compiler
@pytest.mark.parametrize("given", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_near(given):
    """In the tiles of 2x2 that see it, and in its channels' taps; all of what the definition makes not finite is."""
    x, weight, bias, _, grad = inputs(1, 32, 32, 12, 12)
    expected = winograd.forward(x, weight, bias)
    x[0, 3, 5, 6] = given
    found = winograd.forward(x, weight, bias)
    assert not found[:, :, 4:7, 5:8].isfinite().any()
    found[:, :, 4:8, 4:8] = expected[:, :, 4:8, 4:8]
    assert torch.equal(found, expected)
    finite = winograd.weight_grad(grad, x).isfinite()
    assert not finite[:, 3].any()
    assert finite[:, 4:].all() and finite[:, :3].all()
    assert winograd.forward(x, weight, relu=True)[:, :, 5, 6].isnan().all()


@needs_compiler
@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() not in ("AVX512", "AVX2"), reason="not served")
def test_what_is_served(monkeypatch):
    monkeypatch.delenv(backends.VARIABLE, raising=False)
    x, weight = inputs(1, 32, 64, 16, 16)[:2]
    assert winograd.usable(x, weight, *ONES)
    assert winograd.usable(x.clone().requires_grad_(), weight, *ONES)
    assert not winograd.usable(x[:, :, :15], weight, *ONES)
    assert not winograd.usable(x[:, :, :15].contiguous(memory_format=LAST), weight, *ONES)
    assert not winograd.usable(x.contiguous(), weight, *ONES)
    assert not winograd.usable(x.double(), weight, *ONES)
    assert not winograd.usable(x, weight.bfloat16(), *ONES)
    assert not winograd.usable(x.to("meta"), weight.to("meta"), *ONES)
    assert not winograd.usable(x, weight[:48], *ONES)
    assert not winograd.usable(x, weight[:, :, :1, :1], *ONES)
    for i, other in enumerate([(2, 2), (0, 0), (2, 2), 2]):
        assert not winograd.usable(x, weight, *ONES[:i], other, *ONES[i + 1 :])
    assert not winograd.usable(x, weight, (1, 1), "same", (1, 1), 1)
    with torch.autocast("cpu", torch.bfloat16):
        assert not winograd.usable(x, weight, *ONES)
    with FakeTensorMode():
        fake = torch.empty(1, 32, 16, 16).contiguous(memory_format=LAST), torch.empty(64, 32, 3, 3)
        assert not winograd.usable(*fake, *ONES)
    monkeypatch.setenv(backends.VARIABLE, "torch")
    assert not winograd.usable(x, weight, *ONES)


@needs_compiler
def test_what_does_not_fit_is_named():
    x, weight, bias, scale, grad = inputs(1, 32, 64, 4, 4)
    with pytest.raises(ValueError, match=r"x must be float32 \(1, 32, 4, 4\) on the CPU, got torch.float64"):
        winograd.forward(x.double(), weight)
    with pytest.raises(ValueError, match=r"weight must be float32 \(64, 64, 3, 3\) .* got torch.float32 \(64, 32"):
        winograd.forward(grad, weight)
    with pytest.raises(ValueError, match=r"bias must be .*meta"):
        winograd.forward(x, weight, bias.to("meta"))
    with pytest.raises(ValueError, match=r"grad must be"):
        winograd.weight_grad(grad[:, :, :3], x)
    with pytest.raises(ValueError, match=r"scale must be"):
        winograd.input_grad(grad, weight, scale[:5])
    with pytest.raises(RuntimeError, match="sizes do not fit"):
        winograd.forward(x, weight[:33])
    with pytest.raises(RuntimeError, match="sizes do not fit"):
        winograd.forward(x[:0], weight)


@needs_compiler
def test_the_default_device_does_not_matter():
    tensors = inputs(1, 32, 32, 4, 4)
    with torch.device("meta"):
        found = by_winograd(*tensors)
    assert all(map(torch.equal, found, by_winograd(*tensors)))


# Every array is of its size exactly, and threads are new and keep nothing, so that the sanitizer sees any step beside.
DRIVER = """
#include <cmath>
#include <cstdio>
#include <thread>
#include "winograd.cpp"
#include "winograd_weight_grad.cpp"

int refused = 0;

void run(const int64_t* n, int64_t threads, float odd) {
  const int64_t N = n[0], C = n[1], K = n[2], H = n[3], W = n[4];
  std::vector<float> x(N * C * H * W, 0.5f), grad(N * K * H * W, 0.25f), weight(9 * C * K, 1.0f), vector(K, 2.0f);
  std::vector<float> out(grad.size()), x_grad(x.size()), weight_grad(weight.size());
  for (size_t i = 0; i < x.size(); i += 7) x[i] = odd;
  const float* some = threads == 1 ? vector.data() : nullptr;
  refused += m2f_winograd_f32(x.data(), weight.data(), some, some, out.data(), N, H, W, C, K, 1, 0, threads);
  refused += m2f_winograd_f32(grad.data(), weight.data(), some, nullptr, x_grad.data(), N, H, W, K, C, 0, 1, threads);
  refused += m2f_winograd_weight_grad_f32(grad.data(), x.data(), some, weight_grad.data(), N, H, W, C, K, threads);
}

int main() {
  const int64_t cases[][5] = {{1, 32, 32, 1, 1}, {2, 64, 32, 3, 2}, {1, 32, 96, 6, 9}, {1, 32, 64, 17, 40},
                              {3, 96, 160, 2, 5}, {0, 32, 32, 4, 4}, {1, 33, 32, 4, 4}, {1, 32, 32, 0, 4}};
  for (auto& n : cases)
    for (int64_t threads : {1, 3})
      for (float odd : {0.25f, NAN, INFINITY}) std::thread(run, n, threads, odd).join();
  std::printf("%d\\n", refused);
}
"""


@pytest.mark.slow
@pytest.mark.parametrize("target", build.CPU_TARGETS)
def test_sanitizers_find_nothing(target, sanitized):
    """Over odd sizes, NaN and infinity, and sizes that are refused."""
    refused = 3 * 3 * 2 * 3  # cases, calls, numbers of threads, odd values
    assert sanitized(DRIVER, target) == f"{refused}\n"
