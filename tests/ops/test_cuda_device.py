"""The ops on a CUDA device, by the compiled kernels and by Triton's: python -m pytest -m gpu tests/ops."""

import pytest
import torch

from mask2former.ops import ms_deform_attn, neighborhood_attention_2d
from mask2former.ops.backends import VARIABLE
from mask2former.ops.reference import ms_deform_attn_reference, neighborhood_attention_2d_reference

# B batch, S pixels of all levels, H heads, D channels per head, Q queries, L levels, P points
# neighbourhood attention: N heads, H W pixels, k kernel size

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

# of the largest number; gradients of values are sums of many products
TOLERANCES = {torch.float64: 1e-12, torch.float32: 2e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}
DTYPES = list(TOLERANCES)


@pytest.fixture(params=["cuda", "triton"])
def deform_backend(request, monkeypatch):
    monkeypatch.setenv(VARIABLE, request.param)


@pytest.fixture
def cuda_backend(monkeypatch):
    monkeypatch.setenv(VARIABLE, "cuda")


def samples(shapes=((13, 17), (7, 9), (0, 3), (4, 5)), B=2, H=4, D=32, Q=50, P=4, dtype=torch.float32, device="cuda"):
    g = torch.Generator().manual_seed(0)
    S, L = sum(h * w for h, w in shapes), len(shapes)
    precise = torch.promote_types(dtype, torch.float32)
    value = torch.randn(B, S, H, D, generator=g, dtype=precise).to(device, dtype)
    locations = torch.rand(B, Q, H, L, P, 2, generator=g, dtype=precise) * 1.4 - 0.2
    weights = torch.rand(B, Q, H, L, P, generator=g, dtype=precise)
    return value, torch.tensor(shapes), locations.to(device), weights.to(device)


def maps(size=(19, 23), B=2, N=2, D=32, kernel=7, dtype=torch.float32, device="cuda"):
    g = torch.Generator().manual_seed(0)
    precise = torch.promote_types(dtype, torch.float32)
    q, k, v = (torch.randn(B, N, *size, D, generator=g, dtype=precise).to(device, dtype) for _ in range(3))
    return q, k, v, torch.randn(N, 2 * kernel - 1, 2 * kernel - 1, generator=g, dtype=precise).to(device)


def assert_same_with_gradients(op, reference, inputs):
    """The op in the inputs' dtypes, the reference in float64 of the same numbers."""
    tolerance = TOLERANCES[inputs[0].dtype]
    given = [x.detach().clone().requires_grad_() for x in inputs]
    wide = [x.detach().double().requires_grad_() for x in inputs]
    found, wanted = op(*given), reference(*wide)
    g = torch.Generator().manual_seed(1)
    upper = torch.randn(wanted.shape, generator=g, dtype=torch.float64).to(found.device, found.dtype)
    pairs = [(found, wanted)]
    pairs += zip(torch.autograd.grad(found, given, upper), torch.autograd.grad(wanted, wide, upper.double()))
    for a, b in pairs:
        size = max(float(b.detach().abs().max()), 1.0)
        torch.testing.assert_close(a.double(), b, atol=tolerance * size, rtol=tolerance)


def check_deform(value, shapes, locations, weights):
    assert_same_with_gradients(
        lambda v, s, w: ms_deform_attn(v, shapes, s, w),
        lambda v, s, w: ms_deform_attn_reference(v, shapes, s, w),
        (value, locations, weights),
    )


def check_neighborhood(q, k, v, rpb, kernel, dilation):
    settings = kernel, dilation, q.shape[-1] ** -0.5
    assert_same_with_gradients(
        lambda *x: neighborhood_attention_2d(*x, *settings),
        lambda *x: neighborhood_attention_2d_reference(*x, *settings),
        (q, k, v, rpb),
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("D", [3, 16, 32, 64, 136])
def test_deform_equals_the_reference(deform_backend, D, dtype):
    check_deform(*samples(D=D, dtype=dtype))


def test_deform_of_many_sizes(deform_backend):
    g = torch.Generator().manual_seed(2)
    for _ in range(40):
        B, H, D, Q, P, levels = torch.randint(1, 9, (6,), generator=g).tolist()
        shapes = torch.randint(0, 12, (levels, 2), generator=g)
        shapes[0] += 1
        check_deform(*samples(tuple(map(tuple, shapes.tolist())), B, H, D * 4, Q * 7, P))


def test_deform_passes_gradcheck(deform_backend):
    value, shapes, locations, weights = samples(((3, 4), (2, 2)), D=2, Q=3, H=2, P=2, dtype=torch.float64)
    inputs = [x.requires_grad_() for x in (value, locations, weights)]
    # sums on value are in no fixed order
    assert torch.autograd.gradcheck(lambda v, s, w: ms_deform_attn(v, shapes, s, w), inputs, nondet_tol=1e-12)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30, -1e30])
def test_deform_of_bad_numbers_harms_their_query_and_head_only(deform_backend, bad):
    value, shapes, locations, weights = samples()
    wanted = ms_deform_attn(value, shapes, locations, weights).unflatten(2, (4, 32))
    locations[1, 2, 1] = bad
    leaf = value.clone().requires_grad_()
    out = ms_deform_attn(leaf, shapes, locations, weights).unflatten(2, (4, 32))
    out.nan_to_num().sum().backward()
    others = torch.ones(2, 50, 4, dtype=torch.bool)
    others[1, 2, 1] = False
    torch.testing.assert_close(out[others], wanted[others])
    assert bool(out[1, 2, 1].isnan().all()) == (abs(bad) != 1e30)
    assert leaf.grad.isfinite().all()


def test_deform_of_nothing(deform_backend):
    for sizes in ({"Q": 0}, {"B": 0}, {"shapes": ((0, 0),)}):
        value, shapes, locations, weights = samples(**sizes)
        leaf = value.requires_grad_()
        ms_deform_attn(leaf, shapes, locations, weights).sum().backward()
        assert leaf.grad.shape == value.shape and not leaf.grad.any()


def test_deform_of_memory_that_is_not_aligned_for_vectors(cuda_backend):
    value, shapes, locations, weights = samples(dtype=torch.float16)
    moved = torch.cat([value.new_zeros(1), value.flatten()])[1:].view_as(value)
    torch.testing.assert_close(
        ms_deform_attn(moved, shapes, locations, weights), ms_deform_attn(value, shapes, locations, weights)
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("D", "kernel", "dilation"), [(32, 7, 1), (32, 7, 2), (20, 3, 3), (256, 3, 1), (100, 5, 4)])
def test_neighborhood_equals_the_reference(cuda_backend, D, kernel, dilation, dtype):
    size = kernel * dilation + 5, kernel * dilation
    check_neighborhood(*maps(size, D=D, kernel=kernel, dtype=dtype), kernel, dilation)


def test_neighborhood_passes_gradcheck(cuda_backend):
    inputs = [x.requires_grad_() for x in maps((4, 5), B=1, D=3, kernel=3, dtype=torch.float64)]
    op = lambda *x: neighborhood_attention_2d(*x, 3, 1, 0.5)  # noqa: E731
    assert torch.autograd.gradcheck(op, inputs, nondet_tol=1e-12)


def test_neighborhood_of_maps_smaller_than_the_kernel(cuda_backend, monkeypatch):
    inputs = maps((5, 9), kernel=7)
    found = neighborhood_attention_2d(*inputs, 7, 2, 0.2)
    monkeypatch.setenv(VARIABLE, "torch")
    torch.testing.assert_close(found, neighborhood_attention_2d(*inputs, 7, 2, 0.2), atol=1e-5, rtol=1e-5)


def test_kernels_run_on_the_current_stream(cuda_backend):
    value, shapes, locations, weights = samples(Q=2000)
    qkv = maps((64, 64))
    stream = torch.cuda.Stream()
    for op, first in (
        (lambda x: ms_deform_attn(x, shapes, locations, weights), value),
        (lambda x: neighborhood_attention_2d(x, *qkv[1:], 7, 1, 0.2), qkv[0]),
    ):
        wanted = op(first * 2)
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            torch.cuda._sleep(200_000_000)  # what runs on another stream comes too early and reads zeros
            late = torch.zeros_like(first).copy_(first) * 2
            found = op(late)
        stream.synchronize()
        torch.testing.assert_close(found, wanted)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device only")
def test_kernels_run_on_the_device_of_their_tensors(deform_backend):
    check_deform(*samples(device="cuda:1"))
    assert torch.cuda.current_device() == 0


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device only")
def test_neighborhood_runs_on_the_device_of_its_tensors(cuda_backend):
    check_neighborhood(*maps(device="cuda:1"), 7, 1)


def test_a_launch_that_fails_is_raised_with_cudas_words(cuda_backend):
    inputs = maps((200, 200), B=1, N=1, D=256, kernel=199, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="m2f_neighborhood_attention_2d_forward_f64: invalid argument"):
        neighborhood_attention_2d(*inputs, 199, 1, 1.0)  # a row of that many keys is more than shared memory
