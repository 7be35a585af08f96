import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mask2former.ops import neighborhood_attention_2d, neighborhood_attn
from mask2former.ops.reference import neighborhood_attention_2d_reference

# B batch, N heads, H W pixels, D channels per head, k kernel size


def make(H, W, kernel_size, B=1, N=2, D=3, dtype=torch.float64, grad=False, seed=0):
    g = torch.Generator().manual_seed(seed)
    shapes = [(B, N, H, W, D)] * 3 + [(N, 2 * kernel_size - 1, 2 * kernel_size - 1)]
    return [torch.randn(s, generator=g, dtype=torch.float64).to(dtype).requires_grad_(grad) for s in shapes]


def gradients(op, inputs, *settings):
    inputs = [x.detach().requires_grad_() for x in inputs]
    out = op(*inputs, *settings)
    return [out.detach(), *torch.autograd.grad(out.sin().sum(), inputs)]


@pytest.fixture(scope="module")
def stored(shared_dir):
    return np.load(shared_dir / "reference" / "neighborhood_attention.npz")


@pytest.mark.parametrize("op", [neighborhood_attention_2d, neighborhood_attention_2d_reference])
@pytest.mark.parametrize("case", range(3))
def test_results_and_gradients_are_nattens(stored, op, case):
    _, _, kernel_size, dilation, _, channels = stored[f"cfg{case}"].tolist()
    inputs = [torch.from_numpy(stored[f"{name}{case}"]).double() for name in ("q", "k", "v", "rpb")]
    for name, got in zip(
        ("out", "gq", "gk", "gv", "grpb"), gradients(op, inputs, kernel_size, dilation, channels**-0.5)
    ):
        torch.testing.assert_close(got, torch.from_numpy(stored[f"{name}{case}"]), rtol=1e-10, atol=1e-11)


# sizes: exactly kernel * dilation, one tile, tiles of several kinds, groups of unequal length along one axis and both
SIZES = [
    (7, 7, 7, 1),
    (9, 12, 5, 1),
    (33, 41, 11, 1),
    (16, 17, 3, 5),
    (30, 23, 7, 3),
    (6, 26, 3, 2),
    (1, 4, 1, 1),
    (13, 12, 1, 4),
]


@pytest.mark.parametrize(("H", "W", "kernel_size", "dilation"), SIZES)
def test_tiles_equal_the_definition(H, W, kernel_size, dilation):
    inputs = make(H, W, kernel_size, B=2)
    settings = kernel_size, dilation, 0.7
    for got, wanted in zip(
        gradients(neighborhood_attention_2d, inputs, *settings),
        gradients(neighborhood_attention_2d_reference, inputs, *settings),
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-11)


def test_neither_tiles_nor_steps_show(monkeypatch):
    inputs, settings = make(29, 38, 5, B=2), (5, 2, 0.7)
    expected = gradients(neighborhood_attention_2d, inputs, *settings)
    for tile, logits in itertools.product((1, 3, 30), (1, 5000)):
        monkeypatch.setattr(neighborhood_attn, "TILE", tile)
        monkeypatch.setattr(neighborhood_attn, "MAX_LOGITS", logits)
        neighborhood_attn._runs.cache_clear()
        for got, wanted in zip(gradients(neighborhood_attention_2d, inputs, *settings), expected):
            torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-11)
    neighborhood_attn._runs.cache_clear()


@pytest.mark.parametrize("with_rpb", [True, False])
@pytest.mark.parametrize(
    ("H", "W", "kernel_size", "dilation"), [(5, 4, 3, 1), (7, 9, 3, 2), (4, 10, 3, 3), (6, 5, 5, 1)]
)
def test_gradients_are_the_numerical_ones(H, W, kernel_size, dilation, with_rpb):
    q, k, v, rpb = make(H, W, kernel_size, N=1, D=2, grad=True)
    inputs = (q, k, v, rpb) if with_rpb else (q, k, v)

    def op(q, k, v, rpb=None):
        return neighborhood_attention_2d(q, k, v, rpb, kernel_size, dilation, 0.7)

    assert torch.autograd.gradcheck(op, inputs)


@pytest.mark.parametrize(("H", "W"), [(3, 20), (20, 3), (4, 5), (1, 1)])
def test_small_maps_are_extended_by_zeros_and_cropped(H, W):
    q, k, v, rpb = make(H, W, 3)
    extended = [F.pad(x, (0, 0, 0, max(6 - W, 0), 0, max(6 - H, 0))) for x in (q, k, v)]
    expected = neighborhood_attention_2d_reference(*extended, rpb, 3, 2, 0.7)[:, :, :H, :W]
    torch.testing.assert_close(neighborhood_attention_2d(q, k, v, rpb, 3, 2, 0.7), expected)


def test_a_kernel_as_large_as_the_map_is_plain_attention():
    q, k, v, _ = make(7, 7, 7)
    expected = F.scaled_dot_product_attention(*(x.flatten(2, 3) for x in (q, k, v)), scale=0.7).view_as(q)
    torch.testing.assert_close(neighborhood_attention_2d(q, k, v, None, 7, 1, 0.7), expected)


def test_dilation_is_attention_inside_groups_of_pixels():
    q, k, v, rpb = make(16, 22, 3)
    whole = neighborhood_attention_2d(q, k, v, rpb, 3, 4, 0.7)
    for row, column in itertools.product(range(4), range(4)):
        group = (slice(None), slice(None), slice(row, None, 4), slice(column, None, 4))
        part = neighborhood_attention_2d(q[group], k[group], v[group], rpb, 3, 1, 0.7)
        torch.testing.assert_close(whole[group], part)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_lower_precision_stays_near_the_definition(dtype):
    inputs = make(20, 23, 7, D=8)
    lower = gradients(neighborhood_attention_2d, [x.to(dtype) for x in inputs], 7, 2, 0.3)
    for got, wanted in zip(lower, gradients(neighborhood_attention_2d_reference, inputs, 7, 2, 0.3)):
        assert got.dtype == dtype
        assert (got.double() - wanted).norm() / wanted.norm() < 4 * torch.finfo(dtype).eps


def test_dropped_weights_are_the_same_in_both_passes():
    q, k, v, rpb = make(6, 7, 3, N=1, D=1, grad=True)

    def op(*inputs):
        torch.manual_seed(3)
        return neighborhood_attention_2d(*inputs, 3, 2, 0.7, 0.4)

    assert torch.autograd.gradcheck(op, (q, k, v, rpb))
    torch.manual_seed(0)
    ones = torch.ones(1, 1, 40, 40, 1)
    out = neighborhood_attention_2d(0 * ones, 0 * ones, ones, None, 3, 1, 1.0, 0.4)
    assert out.std() > 0.1
    assert float(out.mean()) == pytest.approx(1.0, abs=0.05)  # what is kept is raised by what is dropped


def test_only_asked_gradients_come():
    q, k, v, rpb = make(6, 6, 3)
    out = neighborhood_attention_2d(q, k.requires_grad_(), v, rpb, 3, 1, 0.7)
    out.sum().backward()
    assert k.grad is not None
    assert q.grad is v.grad is rpb.grad is None


def test_bad_arguments_are_answered():
    q, k, v, rpb = make(6, 6, 3)
    with pytest.raises(ValueError, match="all alike"):
        neighborhood_attention_2d(q, k[:, :, 1:], v, rpb, 3, 1, 1.0)
    with pytest.raises(ValueError, match="must be odd, got 4"):
        neighborhood_attention_2d(q, k, v, rpb, 4, 1, 1.0)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        neighborhood_attention_2d(q, k, v, rpb, 3, 0, 1.0)
    with pytest.raises(ValueError, match=r"here \(2, 9, 9\), got \(2, 5, 5\)"):
        neighborhood_attention_2d(q, k, v, rpb, 5, 1, 1.0)
