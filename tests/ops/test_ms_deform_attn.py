import itertools

import pytest
import torch

from mask2former.ops import ms_deform_attn

# B batch, S pixels of all levels, H heads, D channels per head, Q queries, L levels, P points


def make(shapes=((3, 5), (2, 2)), B=2, H=2, D=3, Q=4, P=2, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    S, L = sum(h * w for h, w in shapes), len(shapes)
    value = torch.randn(B, S, H, D, generator=g, dtype=dtype)
    locations = torch.rand(B, Q, H, L, P, 2, generator=g, dtype=dtype) * 1.4 - 0.2  # some outside
    weights = torch.rand(B, Q, H, L, P, generator=g, dtype=dtype)
    return value, torch.tensor(shapes), locations, weights


def bilinear(image, x, y):
    """Value at pixel coordinates, zero outside: the definition, one corner at a time."""
    h, w = image.shape[:2]
    total = torch.zeros(image.shape[2], dtype=image.dtype)
    x0, y0 = int(x // 1), int(y // 1)
    for dy, dx in itertools.product((0, 1), (0, 1)):
        if 0 <= y0 + dy < h and 0 <= x0 + dx < w:
            total += image[y0 + dy, x0 + dx] * (1 - abs(x - x0 - dx)) * (1 - abs(y - y0 - dy))
    return total


def test_equals_the_definition():
    value, shapes, locations, weights = make()
    out = ms_deform_attn(value, shapes, locations, weights)
    B, Q, H, _, P, _ = locations.shape
    for b, q, head in itertools.product(range(B), range(Q), range(H)):
        start, wanted = 0, 0
        for level, (h, w) in enumerate(shapes.tolist()):
            image = value[b, start : start + h * w, head].reshape(h, w, -1)
            start += h * w
            for p in range(P):
                x, y = (locations[b, q, head, level, p] * torch.tensor([w, h]) - 0.5).tolist()
                wanted = wanted + weights[b, q, head, level, p] * bilinear(image, x, y)
        torch.testing.assert_close(out[b, q].view(H, -1)[head], wanted)


def test_gradients():
    value, shapes, locations, weights = make(Q=2, D=2)
    for t in (value, locations, weights):
        t.requires_grad_()
    assert torch.autograd.gradcheck(lambda v, s, w: ms_deform_attn(v, shapes, s, w), (value, locations, weights))


def test_an_empty_level_adds_nothing():
    value, shapes, locations, weights = make()
    padded = torch.cat([shapes, torch.tensor([[0, 4]])])
    more = torch.cat([locations, locations[:, :, :, :1]], 3), torch.cat([weights, weights[:, :, :, :1]], 3)
    torch.testing.assert_close(ms_deform_attn(value, padded, *more), ms_deform_attn(value, shapes, locations, weights))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_its_dtype_and_precise_locations(dtype):
    value, shapes, locations, weights = make(shapes=((64, 64),), dtype=torch.float32)
    half = ms_deform_attn(value.to(dtype), shapes, locations, weights.to(dtype))
    assert half.dtype == dtype
    torch.testing.assert_close(half.float(), ms_deform_attn(value, shapes, locations, weights), atol=0.05, rtol=0.02)


def test_wrong_shapes_name_the_argument():
    value, shapes, locations, weights = make()
    with pytest.raises(ValueError, match="value must be"):
        ms_deform_attn(value[0], shapes, locations, weights)
    with pytest.raises(ValueError, match="sampling_locations must be"):
        ms_deform_attn(value, shapes, locations[..., :1], weights)
    with pytest.raises(ValueError, match="attention_weights must be"):
        ms_deform_attn(value, shapes, locations, weights[..., :1])
    with pytest.raises(ValueError, match="cover 19 pixels, but value has S=18"):
        ms_deform_attn(value[:, :-1], shapes, locations, weights)
