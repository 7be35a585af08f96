"""Bottleneck blocks and stems in one step of autograd equal those of plain operators in double precision."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mask2former.modeling.backbone import pooled_convolution as pooled_module
from mask2former.modeling.backbone.resnet import BasicStem, BottleneckBlock, ResNet
from mask2former.modeling.layers.conv import FrozenBatchNorm
from mask2former.modeling.layers.convolution import convolution, convolution_backward
from mask2former.modeling.layers.recompute import recompute_blocks

SETTINGS = {"norm": "FrozenBN", "num_groups": 1, "stride_in_1x1": False, "dilation": 1, "stride": 1}
LAST = torch.channels_last


def prepared(module):
    """With statistics that are not trivial."""
    torch.manual_seed(0)
    for norm in (m for m in module.modules() if isinstance(m, FrozenBatchNorm)):
        norm.weight.uniform_(0.5, 1.5), norm.running_var.uniform_(0.5, 2)
        norm.bias.normal_(), norm.running_mean.normal_()
    return module.to(memory_format=LAST)


def two_blocks(**changes):
    first = BottleneckBlock(16, 32, 8, **SETTINGS | changes)
    return prepared(nn.Sequential(first, BottleneckBlock(32, 32, 8, **SETTINGS)))


def results(module, x, steps=None):
    """The result and the gradients of everything that wants one; ``steps``: what autograd's last step is called."""
    out = module(x)
    if steps is not None:
        assert steps in type(out.grad_fn).__name__
    leaves = [leaf for leaf in (x, *module.parameters()) if leaf.requires_grad]
    return [out, *torch.autograd.grad(out.double().sin().sum(), leaves)]


def assert_equals_plain(module, x, steps):
    precise = x.detach().double().requires_grad_(x.requires_grad)
    wanted = results(copy.deepcopy(module).double(), precise)
    for found, value in zip(results(module, x, steps), wanted, strict=True):
        assert found.dtype == torch.float32
        assert (found - value).norm() <= 1e-5 * value.norm()


@pytest.fixture
def x():
    torch.manual_seed(1)
    return torch.randn(2, 16, 20, 18).contiguous(memory_format=LAST)


@pytest.mark.parametrize(
    "changes",
    [{}, {"stride": 2}, {"stride": 2, "stride_in_1x1": True}, {"dilation": 2}, {"num_groups": 2}],
    ids=str,
)
@pytest.mark.parametrize("wants_x", [True, False])
def test_blocks_in_one_step(x, changes, wants_x):
    assert_equals_plain(two_blocks(**changes), x.requires_grad_(wants_x), "_Bottleneck")
    block = prepared(BottleneckBlock(16, 16, 8, **SETTINGS))
    assert_equals_plain(block, x.detach().requires_grad_(wants_x), "_Bottleneck")


@pytest.mark.parametrize("wants_x", [True, False])
@pytest.mark.parametrize("part", ["0", "1", "0.conv1", "0.conv2", "0.conv3", "0.shortcut", "1.conv3"])
def test_whatever_is_frozen(x, part, wants_x):
    stage = two_blocks()
    stage.get_submodule(part).requires_grad_(False)
    assert_equals_plain(stage, x.requires_grad_(wants_x), "_Bottleneck")
    stage.requires_grad_(False).get_submodule(part).requires_grad_()
    assert_equals_plain(stage, x.detach().requires_grad_(wants_x), "_Bottleneck")


def test_nothing_is_overwritten_where_gradients_are_asked_for(x):
    block, grad = prepared(BottleneckBlock(16, 16, 8, **SETTINGS)), torch.randn_like(x)
    before, grad_before = x.clone(), grad.clone()
    block(x.requires_grad_()).backward(grad)
    assert torch.equal(x, before) and torch.equal(grad, grad_before)


def test_a_gradient_of_another_layout(x):
    stage = two_blocks()
    expected = torch.autograd.grad(stage(x).sum(), stage[0].conv1.weight)
    found = torch.autograd.grad(stage(x), stage[0].conv1.weight, torch.ones(2, 32, 20, 18))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("part", ["0", "0.conv2", "1.conv3.norm"])
def test_what_is_hooked_is_called(x, part):
    stage, seen = two_blocks(), []
    wanted = results(stage, x.requires_grad_())
    stage.get_submodule(part).register_forward_hook(lambda *args: seen.append(args))
    found = results(stage, x)
    assert len(seen) == 1
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_recomputed_blocks(x):
    stage = two_blocks()
    wanted = results(stage, x.requires_grad_())
    recompute_blocks(stage)
    torch.testing.assert_close(results(stage, x), wanted)


def test_autocast_keeps_the_plain_operators(x):
    with torch.autocast("cpu", torch.bfloat16):
        out = two_blocks()(x)
    assert out.dtype == torch.bfloat16 and "_Bottleneck" not in type(out.grad_fn).__name__


def kept(module, x):
    """Bytes that autograd keeps, without the module's own."""
    sizes = {}

    def pack(tensor):
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = module(x)
    own = {tensor.untyped_storage().data_ptr() for tensor in module.state_dict().values()}
    assert out.requires_grad
    return sum(size for address, size in sizes.items() if address not in own)


def test_no_more_is_kept_than_by_plain_operators():
    stage, x = two_blocks(), torch.randn(1, 16, 64, 64).contiguous(memory_format=LAST).requires_grad_()
    vectors = 4 * (4 + 3) * 3 * 32  # scales and shifts of seven convolutions
    assert kept(stage, x) <= kept(copy.deepcopy(stage).double(), x.detach().double().requires_grad_()) // 2 + vectors


@pytest.mark.parametrize("size", [(32, 32), (37, 45), (3, 70)])
@pytest.mark.parametrize("strip", [1, 1 << 12, 1 << 22])
def test_a_stem_in_strips(size, strip, monkeypatch):
    monkeypatch.setattr(pooled_module, "_STRIP_BYTES", strip)
    stem = prepared(BasicStem(3, 8, "FrozenBN"))
    assert_equals_plain(stem, torch.randn(2, 3, *size), "Pooled")
    with torch.no_grad():
        image = torch.randn(1, 3, *size)
        torch.testing.assert_close(stem(image), copy.deepcopy(stem).double()(image.double()).float())


def test_a_stem_whose_image_wants_a_gradient():
    stem = prepared(BasicStem(3, 8, "FrozenBN"))
    assert_equals_plain(stem, torch.randn(1, 3, 33, 32, requires_grad=True), "MaxPool")


@pytest.mark.parametrize("freeze_at", [0, 1, 3])
def test_a_whole_network(freeze_at):
    net = prepared(ResNet(stem_channels=16, res2_channels=16, width_per_group=4, freeze_at=freeze_at))
    image = torch.randn(1, 3, 64, 96)

    def run(net, image):
        maps = net(image)
        sum(values.double().mean() for values in maps.values()).backward()
        return [*maps.values(), *(p.grad for p in net.parameters() if p.requires_grad)]

    for found, wanted in zip(run(net, image), run(copy.deepcopy(net).double(), image.double()), strict=True):
        assert (found - wanted).norm() <= 1e-5 * wanted.norm()


@pytest.mark.parametrize("kernel, stride, padding, dilation", [(1, 1, 0, 1), (3, 2, 1, 1), (3, 1, 2, 2), (1, 2, 0, 1)])
@pytest.mark.parametrize("size", [3, 12])  # fewer pixels than channels, and more
@pytest.mark.parametrize("scaled", [True, False])
def test_the_convolution_and_its_gradients(kernel, stride, padding, dilation, size, scaled):
    torch.manual_seed(0)
    geometry = (stride, stride), (padding, padding), (dilation, dilation), 1
    x, weight = torch.randn(2, 24, size, size).contiguous(memory_format=LAST), torch.randn(32, 24, kernel, kernel)
    bias, scale = torch.randn(32), torch.rand(32) if scaled else None
    exact = [v.double().requires_grad_() for v in (x, weight, bias)]
    factor = 1 if scale is None else scale.double()[:, None, None, None]
    wanted = F.conv2d(exact[0], exact[1] * factor, exact[2], *geometry)
    grad = torch.randn(wanted.shape).contiguous(memory_format=LAST)
    grads = torch.autograd.grad(wanted, exact, grad.double())
    total, onto = torch.randn_like(grad), torch.randn_like(x)
    close = {"rtol": 1e-5, "atol": 1e-4, "check_dtype": False}
    for sum_, after in ((0, {}), (total, {"total": total, "relu": True})):
        expected = wanted.detach() + sum_
        found = convolution(x, weight, bias, *geometry, scale=scale, **after)
        torch.testing.assert_close(found, expected.relu() if after else expected, **close)
    for wanted_ones in ((True, True, True), (True, True, False), (False, True, False), (True, False, False)):
        found = convolution_backward(grad, x, weight, *geometry, wanted_ones, scale=scale)
        for gradient, expected, asked in zip(found, grads, wanted_ones):
            assert (gradient is not None) == asked
            if asked:
                torch.testing.assert_close(gradient, expected, **close)
    expected = onto + grads[0]
    found = convolution_backward(grad, x, weight, *geometry, (True, True, False), scale=scale, onto=onto)
    torch.testing.assert_close(found[0], expected, **close)
    assert found[0] is onto


def test_trained_norms_keep_the_plain_operators(x):
    block = BottleneckBlock(16, 16, 8, **SETTINGS | {"norm": "BN"}).to(memory_format=LAST)
    assert isinstance(block.conv1.norm, nn.BatchNorm2d)
    assert "_Bottleneck" not in type(block(x).grad_fn).__name__
    block.eval()
    with torch.no_grad():  # then they are fixed
        found, wanted = block(x.clone(memory_format=torch.preserve_format)), copy.deepcopy(block).double()(x.double())
    torch.testing.assert_close(found, wanted.float(), rtol=1e-4, atol=1e-4)
