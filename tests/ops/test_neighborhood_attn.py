import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mask2former.ops import build, neighborhood_attention_2d
from mask2former.ops.reference import neighborhood_attention_2d_reference

# B batch, N heads, H W pixels, D channels per head, k kernel size


@pytest.fixture(autouse=True, params=["torch", "cpp"])
def backend(request, monkeypatch):
    if request.param == "cpp" and build.library("cpu") is None:
        pytest.skip("no compiler")
    monkeypatch.setenv("MASK2FORMER_OPS", request.param)
    return request.param


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
    (13, 150, 13, 1),
]


@pytest.mark.parametrize(("H", "W", "kernel_size", "dilation"), SIZES)
def test_results_and_gradients_are_the_definitions(H, W, kernel_size, dilation):
    inputs = make(H, W, kernel_size, B=2)
    settings = kernel_size, dilation, 0.7
    for got, wanted in zip(
        gradients(neighborhood_attention_2d, inputs, *settings),
        gradients(neighborhood_attention_2d_reference, inputs, *settings),
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-11)


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


def test_only_asked_gradients_come():
    q, k, v, rpb = make(6, 6, 3)
    out = neighborhood_attention_2d(q, k.requires_grad_(), v, rpb, 3, 1, 0.7)
    out.sum().backward()
    assert k.grad is not None
    assert q.grad is v.grad is rpb.grad is None


def test_a_map_without_a_bias_is_one_with_zeros():
    q, k, v, rpb = make(9, 12, 5)
    for got, wanted in zip(
        gradients(lambda *x: neighborhood_attention_2d(*x, None, 5, 2, 0.7), (q, k, v)),
        gradients(lambda *x: neighborhood_attention_2d(*x, 0 * rpb, 5, 2, 0.7), (q, k, v)),
    ):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("channels", [1, 8, 32, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_layout_in_memory_will_do(channels, dtype):
    g = torch.Generator().manual_seed(0)
    stacked = torch.randn(2, 11, 12, 3, 2, channels, generator=g, dtype=dtype)  # [B,H,W,3,N,D]
    q, k, v = stacked.permute(3, 0, 4, 1, 2, 5)
    views = [q, k.contiguous().transpose(-1, -2).contiguous().transpose(-1, -2), v[:1].expand(2, -1, -1, -1, -1)]
    settings = (torch.randn(2, 9, 9, generator=g, dtype=dtype).transpose(1, 2), 5, 2, 0.4)
    results = gradients(lambda *x: neighborhood_attention_2d(*x, *settings), views)
    expected = gradients(lambda *x: neighborhood_attention_2d_reference(*x, *settings), views)
    for got, wanted in zip(results, expected):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("shape", [(0, 2, 9, 9, 4), (1, 0, 9, 9, 4), (1, 2, 0, 9, 4), (1, 2, 9, 0, 4), (1, 2, 9, 9, 0)])
def test_empty_maps_give_empty_results(shape):
    q, k, v = (torch.ones(shape, requires_grad=True) for _ in range(3))
    rpb = torch.ones(shape[1], 5, 5, requires_grad=True)
    out = neighborhood_attention_2d(q, k, v, rpb, 3, 2, 1.0)
    assert out.shape == shape
    grads = torch.autograd.grad(out.sum(), (q, k, v, rpb))
    assert [g.shape for g in grads] == [q.shape, k.shape, v.shape, rpb.shape]
    assert not grads[3].any()
