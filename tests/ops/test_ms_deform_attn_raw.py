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
    """One entry for each call of the compiled function."""
    monkeypatch.setenv(backends.VARIABLE, "cpp")
    backends.backend("ms_deform_attn", "cpu")  # the first choice tries the function
    made, original = [], cpp.ms_deform_attn_raw
    monkeypatch.setattr(cpp, "ms_deform_attn_raw", lambda *arguments: made.append(1) or original(*arguments))
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


def test_gradients_and_half_precision_take_the_steps(calls):
    inputs = make()
    raw(*(x.bfloat16() for x in inputs))
    leaves, same = ([x.clone().requires_grad_() for x in inputs] for _ in range(2))
    grads = (torch.autograd.grad(f(*x).square().sum(), x) for f, x in ((raw, leaves), (in_steps, same)))
    for found, expected in zip(*grads):
        torch.testing.assert_close(found, expected, equal_nan=True)  # an empty level divides offsets by zero
    assert not calls
    with torch.no_grad():
        raw(*leaves)
    assert calls


def test_a_module_is_exported_in_steps(calls):
    torch.manual_seed(0)
    module = MSDeformAttn(32, 3, 4, 2).eval()
    query, reference = torch.randn(1, 39, 32), torch.rand(39, 2)
    arguments = query, query, reference, PIXELS.float(), SHAPES
    with torch.no_grad():
        exported = torch.export.export(module, arguments).module()
        found = exported(*arguments)
        assert not calls
        torch.testing.assert_close(found, module(*arguments))
        assert calls


def test_opcheck():
    value, reference, offsets, logits = make()
    op, arguments = torch.ops.mask2former.ms_deform_attn_raw.default, (value, SHAPES, reference, offsets, logits)
    torch.library.opcheck(op, arguments, test_utils=("test_schema", "test_faketensor"))


def test_what_does_not_fit_is_named():
    value, reference, offsets, logits = make()
    with pytest.raises(ValueError, match=r"reference must be \[Q=7,2\]"):
        raw(value, reference[:3], offsets, logits)
    with pytest.raises(ValueError, match="logits must be"):
        raw(value, reference, offsets, logits[..., :1])
    with pytest.raises(ValueError, match="cover 39 pixels"):
        raw(value[:, 1:], reference, offsets, logits)
