"""The CPU's own ways through linear layers, feed-forward nets, norms and residual blocks change no result."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mask2former.modeling.backbone.resnet import BottleneckBlock
from mask2former.modeling.layers import linear as linear_module
from mask2former.modeling.layers import onednn
from mask2former.modeling.layers.attention import FFNLayer
from mask2former.modeling.layers.conv import FrozenBatchNorm, GroupNorm
from mask2former.modeling.layers.linear import Linear, feed_forward, linear, linears_of_sum
from mask2former.modeling.layers.recompute import recomputed

ROWS = linear_module._MANY_ROWS
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def grads(out, leaves):
    return torch.autograd.grad(out.sin().sum(), leaves)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(ROWS + 3, 12), (2, ROWS, 12), (2, 3, ROWS, 12), (0, ROWS, 12)])
def test_a_linear_layer_over_many_rows(shape, bias):
    x, weight = torch.randn(shape, requires_grad=True), torch.randn(7, 12, requires_grad=True)
    shift = torch.randn(7) if bias else None
    found, wanted = linear(x, weight, shift), F.linear(x, weight, shift)
    assert found.shape == wanted.shape and found.is_contiguous()
    torch.testing.assert_close(found, wanted, **CLOSE)
    torch.testing.assert_close(grads(found, (x, weight)), grads(wanted, (x, weight)), **CLOSE)


def test_a_linear_layer_over_rows_that_lie_apart():
    x, layer = torch.randn(12, 2 * ROWS).t()[::2], Linear(12, 5)
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias), **CLOSE)


@pytest.fixture
def small_portions(monkeypatch):
    monkeypatch.setattr(linear_module, "_HIDDEN_BYTES", 4 * 20 * 100)  # 100 rows of 20 values for each thread


@pytest.mark.parametrize("activation", [F.relu, F.gelu])
@pytest.mark.parametrize("frozen", [(), ("weight",), ("weight", "bias")])
def test_a_feed_forward_net_in_portions(small_portions, activation, frozen):
    first, second, x = Linear(12, 20), Linear(20, 12), torch.randn(2, ROWS, 12, requires_grad=True)
    for name in frozen:
        getattr(first, name).requires_grad_(False)
    leaves = [x, *(p for p in (*first.parameters(), *second.parameters()) if p.requires_grad)]
    found = feed_forward(x, first, second, activation, nn.Dropout(0.0))
    assert "InPortions" in type(found.grad_fn).__name__
    wanted = F.linear(activation(F.linear(x, first.weight, first.bias)), second.weight, second.bias)
    torch.testing.assert_close(found, wanted, **CLOSE)
    torch.testing.assert_close(grads(found, leaves), grads(wanted, leaves), **CLOSE)


@pytest.mark.parametrize("trained", ["x", "first.weight", "first.bias", "second.weight", "second.bias"])
def test_one_gradient_of_a_feed_forward_net_in_portions(small_portions, trained):
    first, second, x = Linear(12, 20), Linear(20, 12), torch.randn(2, ROWS, 12)
    leaves = {"x": x} | {f"first.{n}": p for n, p in first.named_parameters()}
    leaves |= {f"second.{n}": p for n, p in second.named_parameters()}
    for name, leaf in leaves.items():
        leaf.requires_grad_(name == trained)
    found = feed_forward(x, first, second, F.relu, nn.Dropout(0.0))
    wanted = F.linear(F.relu(F.linear(x, first.weight, first.bias)), second.weight, second.bias)
    torch.testing.assert_close(grads(found, leaves[trained]), grads(wanted, leaves[trained]), **CLOSE)


def test_nan_passes_through_a_feed_forward_net():
    first, second, x = Linear(12, 20), Linear(20, 12), torch.randn(ROWS, 12)
    x[3, 4] = torch.nan
    assert feed_forward(x, first, second, F.relu, nn.Dropout(0.0)).isnan().any(1).nonzero().tolist() == [[3]]


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("frozen", [(), ("weight",), ("weight", "bias")])
def test_linear_layers_of_a_sum(images, frozen):
    layers = Linear(12, 7), Linear(12, 5)
    for name in frozen:
        getattr(layers[0], name).requires_grad_(False)
    x, shift = torch.randn(images, ROWS, 12, requires_grad=True), torch.randn(ROWS, 12, requires_grad=True)
    leaves = [x, shift, *(p for layer in layers for p in layer.parameters() if p.requires_grad)]
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        found = linears_of_sum(x, shift, *layers)
    assert {t.data_ptr() for t in kept} == {t.data_ptr() for t in (x, shift, *(layer.weight for layer in layers))}
    wanted = [F.linear(x + shift, layer.weight, layer.bias) for layer in layers]
    torch.testing.assert_close(found, tuple(wanted), **CLOSE)
    torch.testing.assert_close(grads(torch.cat(found, 2), leaves), grads(torch.cat(wanted, 2), leaves), **CLOSE)
    alone = linears_of_sum(x, shift, *layers)[1], F.linear(x + shift, layers[1].weight, layers[1].bias)
    torch.testing.assert_close(*(grads(out, x) for out in alone), **CLOSE)


@pytest.mark.parametrize("rows", [ROWS, 3])
def test_layers_of_a_sum_that_are_more_than_their_weights_are_called(rows):
    layers, calls = (Linear(12, 7), Linear(12, 5)), []
    layers[1].register_forward_hook(lambda *args: calls.append(args))
    x, shift = torch.randn(2, rows, 12), torch.randn(1, 12)
    for found, layer in zip(linears_of_sum(x, shift, *layers), layers):
        torch.testing.assert_close(found, F.linear(x + shift, layer.weight, layer.bias), **CLOSE)
    assert len(calls) == 1


@pytest.mark.parametrize("keep_hidden", [True, False])
def test_dropout_that_acts_is_the_same_in_both_passes(small_portions, keep_hidden):
    first, second, x = Linear(12, 20), Linear(20, 1), torch.randn(ROWS, 12, requires_grad=True)
    out = feed_forward(x, first, second, torch.ones_like, nn.Dropout(0.5), keep_hidden)
    (found,) = torch.autograd.grad(out.sum(), second.weight)
    # every hidden value is one, so that what was kept of it is what its weight's gradient counts
    torch.testing.assert_close((second.weight * found).sum() + ROWS * second.bias[0], out.sum(), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("offset", [0.0, 30.0])
@pytest.mark.parametrize("grad", [True, False])
def test_group_norm_of_channels_last_maps_is_accurate(offset, grad):
    norm = GroupNorm(4, 32)
    nn.init.uniform_(norm.weight), nn.init.normal_(norm.bias)
    x = (torch.randn(2, 32, 40, 37) + offset).contiguous(memory_format=torch.channels_last)
    precise = x.double().requires_grad_()
    wanted = F.group_norm(precise, 4, norm.weight.double(), norm.bias.double())
    with torch.set_grad_enabled(grad):
        leaf = x.clone(memory_format=torch.preserve_format).requires_grad_(grad)
        found = norm(leaf * 1)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=2e-5)
    if grad:
        (here,), (there,) = grads(found, [leaf]), grads(wanted, [precise])
        torch.testing.assert_close(here.double(), there, rtol=0, atol=1e-4)


@pytest.mark.parametrize("channels, stride", [(32, 1), (16, 2)])
def test_a_block_that_adds_in_the_kernel(channels, stride, monkeypatch):
    settings = {"norm": "FrozenBN", "num_groups": 1, "stride_in_1x1": False, "dilation": 1}
    block = BottleneckBlock(channels, 32, 8, stride=stride, **settings).eval()
    for norm in (m for m in block.modules() if isinstance(m, FrozenBatchNorm)):
        norm.running_var.uniform_(0.5, 2), norm.bias.normal_()
    x = torch.randn(2, channels, 10, 9).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        found = block(x.clone(memory_format=torch.preserve_format))
        monkeypatch.setattr(onednn, "usable", lambda x: False)
        torch.testing.assert_close(found, block(x), **CLOSE)


def test_statistics_are_not_counted_twice():
    counting = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    recomputed(counting, torch.randn(2, 3, 5, 5)).sum().backward()
    assert counting[1].num_batches_tracked == 1


@pytest.fixture
def block():
    settings = {"norm": "FrozenBN", "num_groups": 1, "stride_in_1x1": False, "dilation": 1, "stride": 1}
    return BottleneckBlock(32, 32, 8, **settings).eval().to(memory_format=torch.channels_last)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("grad", [True, False])
def test_graphs_keep_the_plain_operators(block, grad, tmp_path):
    net = FFNLayer(32, 64, 0.0, False).eval()
    x, rows = torch.randn(1, 32, 24, 24).contiguous(memory_format=torch.channels_last), torch.randn(1, ROWS, 32)
    with torch.set_grad_enabled(grad):
        wanted = block(x.clone()), net(rows)
        for layer, argument, found in zip((block, net), (x, rows), wanted):
            exported = torch.export.export(layer, (argument.clone(),), strict=True).module()
            torch.testing.assert_close(exported(argument.clone()), found, **CLOSE)
            traced = torch.jit.trace(layer, argument.clone(), check_trace=False)
            torch.jit.save(traced, tmp_path / "traced.pt")
            torch.testing.assert_close(traced(argument.clone()), found, **CLOSE)


def test_layers_that_are_more_than_their_weights_are_called(small_portions):
    first, second, x = Linear(12, 20), Linear(20, 12), torch.randn(ROWS, 12)
    calls = []
    first.register_forward_hook(lambda *args: calls.append(args))
    feed_forward(x, first, second, F.relu, nn.Dropout(0.0))
    assert len(calls) == 1


def test_sizes_without_values():
    assert linear(torch.ones(ROWS, 0), torch.ones(3, 0), torch.ones(3)).sum() == 3 * ROWS
    with torch.no_grad():
        assert GroupNorm(4, 32)(torch.ones(0, 32, 5, 5)).shape == (0, 32, 5, 5)


def test_shapes_alone_are_enough(block):
    assert block.to("meta")(torch.ones(1, 32, 5, 5, device="meta")).shape == (1, 32, 5, 5)
