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
