"""The compiled sums give what their plain torch definitions give."""

import pytest
import torch
import torch.nn.functional as F

from mask2former.ops import backends, build, mask_losses
from mask2former.ops.mask_losses import cross_entropy_cost, focal_cost

pytestmark = pytest.mark.skipif(build.library("cpu") is None, reason="no C++ compiler")

DTYPES = [torch.float32, torch.float64]
TOLERANCE = {torch.float32: {"rtol": 2e-6, "atol": 1e-5}, torch.float64: {"rtol": 1e-13, "atol": 1e-12}}


def mask_sums(logits, labels):
    """[N,3] sums of cross-entropy, of probability times label, and of probability."""
    means = mask_losses.cross_entropy_means(logits, labels)
    return torch.stack([means * logits.shape[1], *mask_losses.probability_sums(logits, labels)], 1)


def draw(rows, targets, samples, dtype=torch.float64):
    """Logits [R,P] and labels [N,P]."""
    g = torch.Generator().manual_seed(0)
    return (
        torch.randn(rows, samples, generator=g, dtype=dtype) * 5,
        torch.rand(targets, samples, generator=g, dtype=dtype).round(decimals=1),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cost", [cross_entropy_cost, focal_cost])
@pytest.mark.parametrize(("rows", "targets", "samples"), [(3, 1, 5), (7, 4, 64), (2, 11, 203), (5, 0, 17), (4, 3, 1)])
def test_sums_of_every_pair(both, rows, targets, samples, cost, dtype):
    logits, labels = draw(rows, targets, samples, dtype)

    def run():
        sums = torch.ones(rows, 2 + 2 * targets, dtype=dtype)  # something is there already
        mask_losses.add_pair_sums(sums, logits, labels, cost)
        return sums

    expected, found = both(run)
    torch.testing.assert_close(found, expected, **TOLERANCE[dtype])


def test_costs_that_are_not_compiled_are_summed_by_torch(monkeypatch):
    monkeypatch.setenv(backends.VARIABLE, "cpp")
    logits, labels = draw(3, 2, 20)
    found = torch.zeros(3, 6, dtype=torch.float64)
    mask_losses.add_pair_sums(found, logits, labels, lambda x: (x.square(), x))
    torch.testing.assert_close(found[:, 0], logits.square().sum(1))
    torch.testing.assert_close(found[:, 2:4], logits @ labels.t())


def test_labels_are_read_where_they_are(monkeypatch):
    """Some columns of more labels, and labels that lie by samples."""
    monkeypatch.setenv(backends.VARIABLE, "cpp")
    logits, labels = draw(3, 5, 40)
    wanted, found, transposed = torch.zeros(3, 3, 12, dtype=torch.float64).unbind()
    mask_losses.add_pair_sums(wanted, logits[:, 10:30], labels[:, 10:30].contiguous(), cross_entropy_cost)
    mask_losses.add_pair_sums(found, logits[:, 10:30], labels[:, 10:30], cross_entropy_cost)
    by_samples = labels.t().contiguous().t()
    mask_losses.add_pair_sums(transposed, logits[:, 10:30], by_samples[:, 10:30], cross_entropy_cost)
    assert torch.equal(found, wanted)
    assert torch.equal(transposed, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("logit", [-80.0, -20.0, -1e-3, 0.0, 1e-3, 20.0, 80.0])
def test_each_softplus_and_probability_is_accurate(monkeypatch, logit, dtype):
    """Small ones, too, have all their digits."""
    monkeypatch.setenv(backends.VARIABLE, "cpp")
    sums, exact = torch.zeros(1, 2, dtype=dtype), torch.tensor([[logit]], dtype=dtype).double()
    mask_losses.add_pair_sums(sums, exact.to(dtype), torch.zeros(0, 1, dtype=dtype), cross_entropy_cost)
    wanted = torch.cat([exact.clamp(min=0) + torch.log1p(torch.exp(-exact.abs())), exact.sigmoid()], 1)
    torch.testing.assert_close(sums.double(), wanted, rtol=4 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("masks", "samples"), [(3, 5), (4, 64), (2, 1203), (0, 8), (1, 1)])
def test_sums_of_each_mask_and_their_gradients(both, masks, samples, dtype):
    logits, labels = draw(masks, masks, samples, dtype)
    grad = draw(masks, masks, 3, dtype)[0]

    def run():
        leaf = logits.clone().requires_grad_()
        sums = mask_sums(leaf, labels)
        return sums.detach(), *torch.autograd.grad(sums, leaf, grad)

    expected, found = both(run)
    torch.testing.assert_close(found, expected, **TOLERANCE[dtype])


def test_gradients_are_derivatives(monkeypatch):
    monkeypatch.setenv(backends.VARIABLE, "cpp")
    logits, labels = draw(2, 2, 11)
    assert torch.autograd.gradcheck(lambda x: mask_sums(x, labels), logits.requires_grad_())


def test_cross_entropy_is_not_a_difference_of_large_numbers(monkeypatch):
    monkeypatch.setenv(backends.VARIABLE, "cpp")
    logits, labels = torch.tensor([[-20.0, 20.0]]), torch.tensor([[0.0, 1.0]])
    wanted = F.binary_cross_entropy_with_logits(logits.double(), labels.double(), reduction="sum")
    found = mask_sums(logits, labels)[0, 0].double()
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("given", [torch.nan, torch.inf, -torch.inf, 1e30, -1e30])
def test_extreme_logits_concern_their_own_mask_only(both, given):
    logits, labels = draw(3, 3, 20, torch.float32)
    logits[1, 4], labels[:, 4] = given, 0.5

    def run():
        leaf = logits.clone().requires_grad_()
        sums, pairs = mask_sums(leaf, labels), torch.zeros(3, 8)
        mask_losses.add_pair_sums(pairs, logits, labels, cross_entropy_cost)
        # of -inf, torch's cross-entropy is NaN instead of infinite
        return sums[::2], sums[:, 1:], *torch.autograd.grad(sums[:, 1:].sum(), leaf), pairs

    expected, found = both(run)
    torch.testing.assert_close(found, expected, equal_nan=True, rtol=1e-5, atol=1e-5)


def test_tracing_half_precision_and_gradients_of_labels_go_to_torch(monkeypatch):
    monkeypatch.setenv(backends.VARIABLE, "cpp")
    called = []
    monkeypatch.setattr(mask_losses.mask_losses_cpp, "mask_sums_forward", lambda *_: called.append(1))
    logits, labels = draw(2, 2, 6)
    mask_sums(logits.bfloat16(), labels.bfloat16())
    mask_sums(logits, labels.clone().requires_grad_()).sum().backward()
    monkeypatch.setattr(torch.jit, "is_tracing", lambda: True)
    mask_sums(logits, labels)
    assert not called


def test_labels_of_other_shapes(monkeypatch):
    """Those that broadcast do so; pairs that do not fit are refused."""
    monkeypatch.setenv(backends.VARIABLE, "cpp")
    logits, labels = draw(4, 1, 10)
    wide = mask_losses.probability_sums(logits, labels)
    torch.testing.assert_close(wide, mask_losses.probability_sums(logits, labels.expand(4, -1)))
    with pytest.raises(RuntimeError):
        mask_losses.probability_sums(logits, labels[:, :5])
    with pytest.raises(ValueError, match="labels must be"):
        mask_losses.add_pair_sums(logits.new_zeros(4, 4), logits, labels[:, :5], cross_entropy_cost)
    with pytest.raises(ValueError, match="sums must be"):
        mask_losses.add_pair_sums(logits.new_zeros(4, 6), logits, labels, cross_entropy_cost)


# Every array is of its size exactly, so that the sanitizer sees any step beside it.
RUN = """
void run(const int64_t* n, int64_t threads, float odd) {
  const int64_t R = n[0], P = n[1], N = n[2], stride = n[3];
  std::vector<float> logits(R * P, -0.5), labels(N ? (N - 1) * stride + P : 0, 1), sums(R * (2 + 2 * N));
  std::vector<float> own(R * P, 0.5), of_masks(R * 3, 1), grad(R * P);
  for (size_t i = 0; i < logits.size(); i += 7) logits[i] = odd;
  for (int64_t cost : {0, 1, 2})
    refused += m2f_add_pair_sums_f32(logits.data(), labels.data(), sums.data(), R, P, N, stride, cost, threads);
  refused += m2f_mask_sums_forward_f32(logits.data(), own.data(), of_masks.data(), R, P, threads);
  refused += m2f_mask_sums_backward_f32(logits.data(), own.data(), of_masks.data(), grad.data(), R, P, threads);
  for (int i = 0; i < 4; ++i) {
    int64_t bad[] = {1, 1, 1, 1};
    bad[i] = -1;
    refused += m2f_add_pair_sums_f32(nullptr, nullptr, nullptr, bad[0], bad[1], bad[2], bad[3], 0, threads);
    refused += m2f_mask_sums_forward_f32(nullptr, nullptr, nullptr, bad[0], -1, threads);
    refused += m2f_mask_sums_backward_f32(nullptr, nullptr, nullptr, nullptr, -1, bad[0], threads);
  }
}
"""
MAIN = """
int main() {
  // rows, samples, targets, and from one target's labels to the next
  const int64_t cases[][4] = {{3, 5, 1, 5}, {7, 64, 4, 64}, {2, 203, 11, 210}, {5, 17, 0, 17}, {4, 1, 3, 1},
                              {2, 1203, 6, 1203}, {3, 9, 5, 0}, {0, 8, 2, 8}, {3, 0, 2, 0}, {3, 0, 2, 1}, {0, 0, 0, 0}};
  for (auto& n : cases)
    for (int64_t threads : {0, 1, 3})
      for (double odd : {0.25, double(NAN), double(INFINITY), -double(INFINITY), 1e30, -1e30}) {
        run(n, threads, float(odd));
        run(n, threads, odd);
      }
  std::printf("%d\\n", refused);
}
"""
DRIVER = '#include <cmath>\n#include <cstdio>\n#include "mask_losses.cpp"\nint refused = 0;\n'
DRIVER += RUN + RUN.replace("float", "double").replace("f32", "f64") + MAIN


@pytest.mark.slow
@pytest.mark.parametrize("target", build.CPU_TARGETS)
def test_sanitizers_find_nothing(target, sanitized):
    """Over odd and empty sizes, NaN, infinite and extreme logits, and sizes that are refused."""
    refused = 11 * 2 * 6 * (17 + 2 * 13)  # cases, dtypes, odd values; calls without threads and with some
    assert sanitized(DRIVER, target) == f"{refused}\n"
