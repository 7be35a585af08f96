"""The CUDA kernels, run on the CPU: ``cuda_emulation`` stands in for CUDA's headers, and g++ compiles the same files.

What needs a device, vectorised atomics and the speed, is not seen here; see ``test_cuda_device.py``.
"""

import contextlib
import ctypes
import itertools
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mask2former.ops import build, cuda
from mask2former.ops.reference import ms_deform_attn_reference, neighborhood_attention_2d_reference

# B batch, S pixels of all levels, H heads, D channels per head, Q queries, L levels, P points
# neighbourhood attention: N heads, H W pixels, k kernel size

TOLERANCES = {torch.float64: 1e-12, torch.float32: 2e-5, torch.float16: 3e-3, torch.bfloat16: 2e-2}
DTYPES = list(TOLERANCES)


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++")
    path = tmp_path_factory.mktemp("emulated") / "cuda.so"
    folder = Path(__file__).parent / "cuda_emulation"
    flags = f"-std=c++17 -O0 -fPIC -shared -Wno-attributes -I{folder} -x c++".split()
    subprocess.run([compiler, *flags, *map(str, sorted((build.CSRC / "cuda").glob("*.cu"))), "-o", path], check=True)
    library = ctypes.CDLL(str(path))
    library.m2f_error.restype = ctypes.c_char_p
    return library


@pytest.fixture(autouse=True)
def cuda_is_the_cpu(emulated, monkeypatch):
    monkeypatch.setattr(build, "library", lambda kind, required: emulated)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=0))


# ---- multi-scale deformable attention


def samples(shapes=((3, 5), (0, 4), (2, 2)), B=2, H=2, D=8, Q=5, P=3, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    S, L = sum(h * w for h, w in shapes), len(shapes)
    precise = torch.promote_types(dtype, torch.float32)
    value = torch.randn(B, S, H, D, generator=g, dtype=precise).to(dtype)
    locations = torch.rand(B, Q, H, L, P, 2, generator=g, dtype=precise) * 1.6 - 0.3  # some outside
    weights = torch.rand(B, Q, H, L, P, generator=g, dtype=precise)
    return value, torch.tensor(shapes), locations, weights


def assert_deform_equals_reference(value, shapes, locations, weights):
    tolerance = {"atol": TOLERANCES[value.dtype], "rtol": TOLERANCES[value.dtype]}
    wide = torch.promote_types(value.dtype, torch.float32)
    leaves = [x.to(wide).requires_grad_() for x in (value, locations, weights)]
    wanted = ms_deform_attn_reference(leaves[0], shapes, *leaves[1:])
    grad = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(1), dtype=wide).to(value.dtype)
    out = cuda.ms_deform_attn_forward(value, shapes, locations, weights)
    assert out.dtype == value.dtype
    torch.testing.assert_close(out.to(wide), wanted, **tolerance)
    grads = cuda.ms_deform_attn_backward(grad, value, shapes, locations, weights)
    wanted = torch.autograd.grad(wanted, leaves, grad.to(wide), materialize_grads=True)
    for found, expected, like in zip(grads, wanted, (value, locations, weights)):
        assert found.dtype == like.dtype
        size = max(float(expected.abs().max()), 1.0) if expected.numel() else 1.0
        torch.testing.assert_close(found.to(wide), expected, atol=tolerance["atol"] * size, rtol=tolerance["rtol"])


# 16-byte loads by 4, 8, 16 and 32 lanes, more channels than those take, and channels that cannot be loaded so
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("D", [3, 16, 32, 40, 64, 136])
def test_deform_equals_the_reference(D, dtype):
    assert_deform_equals_reference(*samples(D=D, dtype=dtype))


@pytest.mark.parametrize(
    "sizes", [{"P": 20, "Q": 2}, {"Q": 33, "B": 1}, {"shapes": ((1, 1),)}, {"B": 3, "H": 3}], ids=str
)
def test_deform_of_other_sizes(sizes):
    assert_deform_equals_reference(*samples(**sizes))


@pytest.mark.parametrize("sizes", [{"Q": 0}, {"B": 0}, {"D": 0}, {"P": 0}, {"shapes": ((0, 0),)}], ids=str)
def test_deform_of_nothing(sizes):
    value, shapes, locations, weights = samples(**sizes)
    out = cuda.ms_deform_attn_forward(value, shapes, locations, weights)
    assert out.shape == (value.shape[0], locations.shape[1], value.shape[2] * value.shape[3])
    assert not out.any()
    grads = cuda.ms_deform_attn_backward(torch.ones_like(out), value, shapes, locations, weights)
    assert not any(g.any() for g in grads)


def test_deform_of_memory_that_is_not_aligned_for_vectors():
    value, shapes, locations, weights = samples(D=32, dtype=torch.float32)
    moved = torch.cat([value.new_zeros(1), value.flatten()])[1:].view_as(value)
    assert moved.data_ptr() % 16
    assert_deform_equals_reference(moved, shapes, locations, weights)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_deform_of_bad_numbers_harms_their_query_and_head_only(bad):
    value, shapes, locations, weights = samples(D=32, dtype=torch.float32)
    wanted = cuda.ms_deform_attn_forward(value, shapes, locations, weights).view(2, 5, 2, 32)
    grad = torch.ones(2, 5, 64)
    wanted_grads = cuda.ms_deform_attn_backward(grad, value, shapes, locations, weights)
    harmed = locations.clone()
    harmed[1, 2, 1, 0, 1, 0] = bad
    out = cuda.ms_deform_attn_forward(value, shapes, harmed, weights).view(2, 5, 2, 32)
    others = torch.ones(2, 5, 2, dtype=torch.bool)
    others[1, 2, 1] = False
    assert torch.equal(out[others], wanted[others])
    assert bool(out[1, 2, 1].isnan().all()) == (abs(bad) != 1e30)
    _, to_locations, to_weights = cuda.ms_deform_attn_backward(grad, value, shapes, harmed, weights)
    assert bool(to_weights[1, 2, 1, 0, 1].isnan()) == bool(to_locations[1, 2, 1, 0, 1].isnan().all()) == (bad != 1e30)
    torch.testing.assert_close(to_locations[others], wanted_grads[1][others])
    torch.testing.assert_close(to_weights[others], wanted_grads[2][others])


def test_deform_of_shapes_that_do_not_cover_the_values_is_an_error():
    value, shapes, locations, weights = samples()
    with pytest.raises(RuntimeError, match="m2f_ms_deform_attn_forward_f64: invalid argument"):
        cuda.ms_deform_attn_forward(value[:, :-1], shapes, locations, weights)
    with pytest.raises(ValueError, match="has 65 levels, the CUDA kernels take 64"):
        cuda.ms_deform_attn_forward(*samples(shapes=((1, 1),) * 65))


# ---- neighbourhood attention


def maps(size=(9, 11), B=1, N=2, D=8, kernel=3, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    precise = torch.promote_types(dtype, torch.float32)
    q, k, v = (torch.randn(B, N, *size, D, generator=g, dtype=precise).to(dtype) for _ in range(3))
    return q, k, v, torch.randn(N, 2 * kernel - 1, 2 * kernel - 1, generator=g, dtype=precise)


def assert_neighborhood_equals_reference(q, k, v, rpb, kernel, dilation):
    tolerance = {"atol": 4 * TOLERANCES[q.dtype], "rtol": 2 * TOLERANCES[q.dtype]}
    wide = torch.promote_types(q.dtype, torch.float32)
    leaves = [None if x is None else x.to(wide).requires_grad_() for x in (q, k, v, rpb)]
    height, width = q.shape[2:4]
    pads = [max(kernel * dilation - n, 0) for n in (width, height)]  # smaller maps go on as zeros
    padded = [torch.nn.functional.pad(x, (0, 0, 0, pads[0], 0, pads[1])) for x in leaves[:3]]
    wanted = neighborhood_attention_2d_reference(*padded, leaves[3], kernel, dilation, 0.4)[:, :, :height, :width]
    settings = kernel, dilation, 0.4
    out, lse = cuda.neighborhood_attention_2d_forward(q, k, v, rpb, *settings)
    assert out.dtype == q.dtype
    torch.testing.assert_close(out.to(wide), wanted, **tolerance)
    grad = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(1), dtype=wide).to(q.dtype)
    grads = cuda.neighborhood_attention_2d_backward(grad, q, k, v, rpb, out, lse, *settings)
    assert (grads[3] is None) == (rpb is None)
    given = [x for x in leaves if x is not None]
    for found, expected in zip(grads, torch.autograd.grad(wanted, given, grad.to(wide))):
        size = max(float(expected.abs().max()), 1.0)
        torch.testing.assert_close(found.to(wide), expected, atol=tolerance["atol"] * size, rtol=tolerance["rtol"])


# one tile and several, one lane per query and several, shifted and padded neighbourhoods, and bias or none
@pytest.mark.parametrize(
    ("size", "D", "kernel", "dilation", "biased"),
    [
        ((9, 11), 8, 3, 1, True),
        ((17, 10), 32, 7, 1, True),
        ((8, 19), 20, 3, 2, False),
        ((11, 7), 3, 3, 3, True),  # groups of different sizes
        ((5, 4), 8, 3, 2, True),  # smaller than the kernel
        ((2, 9), 4, 5, 2, True),
        ((6, 3), 70, 1, 1, True),
        ((13, 13), 2, 13, 1, False),
    ],
)
def test_neighborhood_equals_the_reference(size, D, kernel, dilation, biased):
    *qkv, rpb = maps(size, D=D, kernel=kernel)
    assert_neighborhood_equals_reference(*qkv, rpb if biased else None, kernel, dilation)


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_neighborhood_of_other_dtypes(dtype):
    assert_neighborhood_equals_reference(*maps(D=32, dtype=dtype), kernel=3, dilation=2)


def test_neighborhood_of_maps_in_any_order_of_memory():
    g = torch.Generator().manual_seed(0)
    qkv = torch.randn(2, 7, 9, 3, 2, 8, generator=g, dtype=torch.float64)  # as one projection makes them: [B,H,W,3,N,D]
    q, k, v = qkv.permute(3, 0, 4, 1, 2, 5)
    rpb = torch.randn(2, 5, 5, generator=g, dtype=torch.float64)
    assert_neighborhood_equals_reference(q, k.contiguous(), v.transpose(2, 3).contiguous().transpose(2, 3), rpb, 3, 1)


@pytest.mark.parametrize("change", [{"B": 0}, {"N": 0}, {"size": (0, 3)}, {"D": 0}], ids=str)
def test_neighborhood_of_nothing(change):
    q, k, v, rpb = maps(**change)
    out, lse = cuda.neighborhood_attention_2d_forward(q, k, v, rpb, 3, 1, 1.0)
    grads = cuda.neighborhood_attention_2d_backward(torch.ones_like(out), q, k, v, rpb, out, lse, 3, 1, 1.0)
    assert not any(x.any() for x in (out, *grads))


@pytest.mark.parametrize(("place", "channel"), list(itertools.product([0, 1, 2], [float("nan"), float("inf")])))
def test_neighborhood_of_bad_numbers_reaches_only_who_sees_them(place, channel):
    *qkv, rpb = maps((12, 12), B=1, N=1, dtype=torch.float32)
    wanted, _ = cuda.neighborhood_attention_2d_forward(*qkv, rpb, 3, 1, 1.0)
    qkv[place][0, 0, 5, 5, 2] = channel
    out, _ = cuda.neighborhood_attention_2d_forward(*qkv, rpb, 3, 1, 1.0)
    unseen = torch.ones(12, 12, dtype=torch.bool)
    unseen[4:7, 4:7] = False
    assert torch.equal(out[0, 0, unseen], wanted[0, 0, unseen])


def test_neighborhood_of_large_logits():
    q, k, v, rpb = maps()
    assert_neighborhood_equals_reference(q * 30, k * 30, v, rpb, kernel=3, dilation=1)  # exp() of thousands overflows


def test_neighborhood_of_too_many_channels_is_an_error():
    with pytest.raises(ValueError, match="q has 257 channels per head, the CUDA kernels take 256"):
        cuda.neighborhood_attention_2d_forward(*maps((3, 3), D=257), 3, 1, 1.0)
