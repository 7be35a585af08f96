"""The group norm layer: the same with compiled code and without, and what it keeps for the backward pass."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mask2former.modeling.layers import group_norm as module
from mask2former.modeling.layers.conv import conv_norm
from mask2former.modeling.layers.group_norm import GroupNorm, remade
from mask2former.modeling.pixel_decoder.msdeform import _lateral_sum
from mask2former.ops import backends, build

compiled = pytest.mark.skipif(build.library("cpu") is None, reason="no C++ compiler")
BACKENDS = ["torch", pytest.param("cpp", marks=compiled)]
CLOSE = {"rtol": 1e-5, "atol": 2e-5}


def channels_last(*shape, **settings):
    return torch.randn(*shape, **settings).contiguous(memory_format=torch.channels_last)


def layer(groups=4, channels=32):
    norm = GroupNorm(groups, channels)
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    return norm


@pytest.fixture
def passes(monkeypatch):
    """Counts how often a result is made."""
    made, function = [], module._normalised
    monkeypatch.setattr(module, "_normalised", lambda *args, **kwargs: made.append(0) or function(*args, **kwargs))
    return made


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("after", ["nothing", "relu", "coarser"])
@pytest.mark.parametrize("grad", [True, False])
def test_every_way_is_the_same(monkeypatch, backend, after, grad):
    monkeypatch.setenv(backends.VARIABLE, backend)
    norm, coarser = layer(), channels_last(2, 32, 6, 7).requires_grad_()
    leaves = [channels_last(2, 32, 11, 13).requires_grad_(), *norm.parameters()]
    wanted = F.group_norm(leaves[0].double(), 4, norm.weight.double(), norm.bias.double())
    with torch.set_grad_enabled(grad):
        if after == "coarser":
            leaves.append(coarser)
            found = norm(leaves[0].clone(), coarser=coarser)
            wanted = wanted + F.interpolate(coarser.double(), size=(11, 13), mode="bilinear", align_corners=False)
        else:
            found = norm(leaves[0].clone(), relu=after == "relu")
            wanted = wanted.relu() if after == "relu" else wanted
    assert found.requires_grad == grad and found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.double(), wanted, **CLOSE)
    if grad:
        weight = channels_last(2, 32, 11, 13)
        pairs = zip(*(torch.autograd.grad((out * weight).sum(), leaves) for out in (found, wanted)))
        for here, there in pairs:
            torch.testing.assert_close(here, there, rtol=1e-4, atol=1e-4)


@compiled
@pytest.mark.parametrize("relu", [True, False])
def test_gradients_by_differences(relu):
    norm = layer(3, 6).double()
    x, coarser = (channels_last(2, 6, *size, dtype=torch.float64).requires_grad_() for size in ((5, 4), (3, 2)))
    if relu:
        assert torch.autograd.gradcheck(lambda x, *_: norm(x * 1, relu=True), (x, norm.weight, norm.bias))
    else:
        function = lambda x, coarser, *_: norm(x * 1, coarser=coarser)  # noqa: E731
        assert torch.autograd.gradcheck(function, (x, coarser, norm.weight, norm.bias))


@compiled
@pytest.mark.parametrize("frozen", ["weight", "bias", "both"])
def test_parameters_that_are_not_trained(frozen):
    norm, x = layer(), channels_last(1, 32, 5, 5).requires_grad_()
    for name in ("weight", "bias") if frozen == "both" else (frozen,):
        getattr(norm, name).requires_grad_(False)
    norm(x * 1).sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in (x, *norm.parameters()))


@compiled
@pytest.mark.parametrize("user", ["convolution", "function"])
def test_a_result_is_remade_instead_of_kept(passes, user):
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.square()

        @staticmethod
        def backward(ctx, grad):
            return 2 * grad * ctx.saved_tensors[0]

    norm, following = layer(), nn.Conv2d(32, 8, 3) if user == "convolution" else Square.apply
    x = channels_last(2, 32, 9, 9).requires_grad_()
    weights = list(following.parameters()) if user == "convolution" else []
    leaves, found = [x, *norm.parameters(), *weights], []
    for makes, context in ((1, lambda made: torch.enable_grad()), (2, remade)):
        passes.clear()
        made = norm(x * 1, relu=True)
        with context(made):
            out = following(made)
        del made
        found.append(torch.autograd.grad(out.sin().sum(), leaves))
        assert len(passes) == makes
    assert all(torch.equal(a, b) for a, b in zip(*found))


def test_other_results_are_kept():
    x = torch.randn(2, 3, 5, 5, requires_grad=True)
    for made in (x, x.exp(), x.detach()):
        with remade(made):
            out = made.square()
        if out.requires_grad:
            torch.testing.assert_close(torch.autograd.grad(out.sum(), made)[0], 2 * made)


@compiled
def test_a_graph_that_is_used_twice(passes):
    norm, conv, x = layer(), nn.Conv2d(32, 8, 1), channels_last(1, 32, 5, 5).requires_grad_()
    made = norm(x * 1)
    with remade(made):
        out = conv(made).sin().sum()
    first = torch.autograd.grad(out, conv.weight, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(out, conv.weight)[0], first) and len(passes) == 3


@compiled
def test_a_convolution_has_its_relu_in_the_norm(passes):
    smooth, x = conv_norm(16, 32, 3, norm="GN", activation=F.relu_), channels_last(1, 16, 9, 9)
    found = smooth(x)
    assert "GroupNorm" in type(found.grad_fn).__name__ and len(passes) == 1
    wanted = F.group_norm(F.conv2d(x, smooth.weight, padding=1), 32, smooth.norm.weight, smooth.norm.bias).relu()
    torch.testing.assert_close(found, wanted, **CLOSE)


@pytest.mark.parametrize("norm", ["GN", "", "BN"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_lateral_sum(monkeypatch, backend, norm):
    monkeypatch.setenv(backends.VARIABLE, backend)
    adapter = conv_norm(16, 32, 1, norm=norm, activation=None)
    x, coarser = channels_last(2, 16, 9, 9).requires_grad_(), channels_last(2, 32, 5, 5).requires_grad_()
    found = _lateral_sum(adapter, x, coarser)
    wanted = adapter(x) + F.interpolate(coarser, size=(9, 9), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, wanted, **CLOSE)
    leaves = [x, coarser, *adapter.parameters()]
    pairs = [torch.autograd.grad(out.sin().sum(), leaves) for out in (found, wanted)]
    torch.testing.assert_close(*pairs, rtol=1e-4, atol=1e-4)


@compiled
def test_hooks_of_an_adapter_are_called():
    adapter, calls = conv_norm(16, 32, 1, norm="GN", activation=None), []
    adapter.register_forward_hook(lambda *args: calls.append(args))
    _lateral_sum(adapter, channels_last(1, 16, 9, 9), channels_last(1, 32, 5, 5))
    assert len(calls) == 1


@compiled
def test_autocast_and_graphs_keep_the_plain_operators(passes):
    norm, x = layer().eval(), channels_last(1, 32, 9, 9)
    wanted = norm(x.clone(), relu=True)
    passes.clear()
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(norm(x.clone(), relu=True), wanted, **CLOSE)
    exported = torch.export.export(norm, (x.clone(),), {"relu": True}, strict=True).module()
    torch.testing.assert_close(exported(x.clone(), relu=True), wanted, **CLOSE)
    assert not passes


def test_one_thing_is_done_with_the_result():
    with pytest.raises(ValueError, match="relu and coarser"):
        layer()(channels_last(1, 32, 5, 5), relu=True, coarser=channels_last(1, 32, 3, 3))
