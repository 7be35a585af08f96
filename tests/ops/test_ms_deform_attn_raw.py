"""From a module's projections straight to the result: as in steps, and only where that can be."""

import pytest
import torch

from mask2former.modeling.pixel_decoder.msdeform import MSDeformAttn
from mask2former.ops import backends, build, cpp, ms_deform_attn, ms_deform_attn_raw

SHAPES = torch.tensor([[3, 5], [0, 4], [6, 4]])
PIXELS = SHAPES.flip(1)

pytestmark = pytest.mark.skipif(build.library("cpu") is None, reason="no C++ compiler")


@pytest.fixture(autouse=True)
def calls(monkeypatch):
    """The name of each compiled function that is called."""
    monkeypatch.setenv(backends.VARIABLE, "cpp")
    backends.backend("ms_deform_attn", "cpu")  # the first choice tries the functions
    made = []

    def record(name, original):
        monkeypatch.setattr(cpp, name, lambda *arguments: made.append(name) or original(*arguments))

    for name in ("ms_deform_attn_raw", "ms_deform_attn_raw_backward"):
        record(name, getattr(cpp, name))
    return made


def make(dtype=torch.float32, channels=32, points=3):
    """Value [B,S,H,D], reference [Q,2], offsets [B,Q,H,L,P,2] and logits [B,Q,H,L,P]."""
    draw = torch.Generator().manual_seed(0)
    shapes = (2, 39, 2, channels), (7, 2), (2, 7, 2, 3, points, 2), (2, 7, 2, 3, points)
    value, reference, offsets, logits = (torch.randn(s, generator=draw, dtype=dtype) for s in shapes)
    return value, reference.sigmoid(), 2 * offsets, 3 * logits


def raw(value, reference, offsets, logits):
    return ms_deform_attn_raw(value, SHAPES, reference, PIXELS.to(reference.dtype), offsets, logits)


def in_steps(value, reference, offsets, logits):
    locations = reference[:, None, None, None] + offsets / PIXELS.to(offsets.dtype)[:, None]
    return ms_deform_attn(value, SHAPES, locations, logits.flatten(3).softmax(-1).view_as(logits))


@pytest.mark.parametrize("channels", [32, 5])
@pytest.mark.parametrize("points", [1, 3, 4])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
def test_as_in_steps(calls, dtype, tolerance, points, channels):
    inputs = make(dtype, channels, points)
    torch.testing.assert_close(raw(*inputs), in_steps(*inputs), atol=tolerance, rtol=0)
    assert len(calls) == 1


@pytest.mark.parametrize("given", [torch.nan, torch.inf, -torch.inf, 1e30])
@pytest.mark.parametrize("which", [1, 2, 3])
def test_extreme_numbers(which, given):
    inputs = make()
    inputs[which].view(-1)[5] = given
    torch.testing.assert_close(raw(*inputs), in_steps(*inputs), atol=1e-5, rtol=0, equal_nan=True)


def grads(op, inputs, of=(0, 2, 3)):
    leaves = [x.clone().requires_grad_(i in of) for i, x in enumerate(inputs)]
    return torch.autograd.grad(op(*leaves).square().sum(), [leaves[i] for i in of])


@pytest.mark.parametrize("threads", [1, 2, 7])  # more than images and heads: levels are tasks of their own
@pytest.mark.parametrize(("channels", "points"), [(32, 3), (5, 1), (40, 4)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-12)])
def test_gradients_are_those_of_the_steps(calls, dtype, tolerance, channels, points, threads):
    inputs, before = make(dtype, channels, points), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found, again = grads(raw, inputs), grads(raw, inputs)
    finally:
        torch.set_num_threads(before)
    assert calls == ["ms_deform_attn_raw", "ms_deform_attn_raw_backward"] * 2
    for here, there, same in zip(found, grads(in_steps, inputs), again):
        # an empty level divides offsets by zero
        torch.testing.assert_close(here, there, atol=tolerance, rtol=tolerance, equal_nan=True)
        torch.testing.assert_close(here, same, atol=0, rtol=0, equal_nan=True)


def test_gradients_of_small_steps(calls):
    value, reference, offsets, logits = make(torch.float64, 3, 2)
    shapes, pixels = torch.tensor([[3, 5], [6, 4]]), torch.tensor([[5.0, 3.0], [4.0, 6.0]], dtype=torch.float64)
    leaves = [x.clone().requires_grad_() for x in (value, offsets[:, :, :, ::2], logits[:, :, :, ::2])]
    assert torch.autograd.gradcheck(
        lambda value, offsets, logits: ms_deform_attn_raw(value, shapes, reference, pixels, offsets, logits), leaves
    )
    assert "ms_deform_attn_raw_backward" in calls


@pytest.mark.parametrize("given", [torch.nan, torch.inf, -torch.inf, 1e30])
@pytest.mark.parametrize("which", [0, 2, 3])
def test_gradients_at_extreme_numbers(which, given):
    inputs = make()
    inputs[which].view(-1)[5] = given
    for found, wanted in zip(grads(raw, inputs), grads(in_steps, inputs)):
        same = found.isfinite()
        assert (wanted.isfinite() | ~same).all()  # of a location, NaN reaches x and y; in steps sometimes one
        torch.testing.assert_close(found[same], wanted[same], atol=1e-4, rtol=1e-4)


def test_a_gradient_of_the_reference_and_half_precision_take_the_steps(calls):
    inputs = make()
    raw(*(x.bfloat16() for x in inputs))
    found, wanted = grads(raw, inputs, (0, 1, 2, 3)), grads(in_steps, inputs, (0, 1, 2, 3))
    torch.testing.assert_close(found, wanted, equal_nan=True)
    assert not calls
    with torch.no_grad():
        raw(*(x.clone().requires_grad_() for x in inputs))
    assert calls


def test_a_module_is_exported_in_steps(calls):
    torch.manual_seed(0)
    module = MSDeformAttn(32, 3, 4, 2).eval()
    arguments = torch.randn(1, 39, 32), torch.randn(39, 32), torch.rand(39, 2), PIXELS.float(), SHAPES
    with torch.no_grad():
        exported = torch.export.export(module, arguments).module()
        found = exported(*arguments)
        assert not calls
        torch.testing.assert_close(found, module(*arguments))
        assert calls


@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck(requires_grad):
    value, reference, offsets, logits = make(torch.float64, 3, 1)
    value, offsets, logits = (
        x.requires_grad_(requires_grad) for x in (value, offsets[:, :, :, ::2], logits[:, :, :, ::2])
    )
    shapes = torch.tensor([[3, 5], [6, 4]])
    torch.library.opcheck(torch.ops.mask2former.ms_deform_attn_raw.default, (value, shapes, reference, offsets, logits))


def test_what_does_not_fit_is_named():
    value, reference, offsets, logits = make()
    with pytest.raises(ValueError, match=r"reference must be \[Q=7,2\]"):
        raw(value, reference[:3], offsets, logits)
    with pytest.raises(ValueError, match="logits must be"):
        raw(value, reference, offsets, logits[..., :1])
    with pytest.raises(ValueError, match="cover 39 pixels"):
        raw(value[:, 1:], reference, offsets, logits)
