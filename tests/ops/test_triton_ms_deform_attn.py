"""The Triton kernels in Triton's interpreter, which computes on the CPU: a variable that is read on import says so."""

import importlib.util
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")

SCRIPT = """
import torch
from mask2former.ops import triton_ms_deform_attn as op
from mask2former.ops.reference import ms_deform_attn_reference

def check(shapes, D, P, dtype, bad=None, Q=3):
    B, H, L, S = 2, 2, len(shapes), sum(h * w for h, w in shapes)
    g = torch.Generator().manual_seed(0)
    precise = torch.promote_types(dtype, torch.float32)
    rand = lambda *shape: torch.rand(*shape, generator=g, dtype=precise)
    value, locations, weights = rand(B, S, H, D) - 0.5, rand(B, Q, H, L, P, 2) * 1.6 - 0.3, rand(B, Q, H, L, P)
    value = value.to(dtype)
    grad = (rand(B, Q, H * D) - 0.5).to(dtype)
    leaves = [x.to(precise).requires_grad_() for x in (value, locations, weights)]
    table = torch.tensor(shapes)
    wanted = ms_deform_attn_reference(leaves[0], table, *leaves[1:])
    wanted = wanted + 0 * sum(x.sum() for x in leaves)  # without pixels it depends on nothing
    wanted_grads = torch.autograd.grad(wanted, leaves, grad.to(precise))
    wanted = wanted.detach()
    out = op.ms_deform_attn_forward(value, table, locations, weights)
    grads = op.ms_deform_attn_backward(grad, value, table, locations, weights)
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 3e-3}[dtype]
    for found, expected, like in zip((out, *grads), (wanted, *wanted_grads), (value, value, locations, weights)):
        assert found.dtype == like.dtype
        size = float(expected.abs().max()) if expected.numel() else 0.0
        torch.testing.assert_close(found.to(precise), expected, rtol=tolerance, atol=tolerance * max(size, 1.0))
    for bad in (float("nan"), float("inf"), 1e30):  # reaches its own query and head only
        if not out.numel() or not S:
            continue
        harmed = locations.clone()
        harmed[1, 2, 1, -1, 0, 1] = bad
        changed = op.ms_deform_attn_forward(value, table, harmed, weights).view(B, Q, H, D)
        others = torch.ones(B, Q, H, dtype=torch.bool)
        others[1, 2, 1] = False
        assert torch.equal(changed[others], out.view(B, Q, H, D)[others])
        assert bool(changed[1, 2, 1].isnan().all()) == (bad != 1e30)
        spoilt = op.ms_deform_attn_backward(grad, value, table, harmed, weights)
        assert bool(spoilt[1][1, 2, 1, -1, 0].isnan().all()) == (bad != 1e30)
        assert torch.equal(spoilt[1][others], grads[1][others]) and torch.equal(spoilt[2][others], grads[2][others])

for dtype in (torch.float64, torch.float32, torch.float16):
    check(((3, 5), (0, 4), (2, 2)), 8, 3, dtype)
check(((3, 5),), 5, 4, torch.float64)
check(((3, 5),), 8, 4, torch.float64, Q=0)
check(((0, 0),), 8, 4, torch.float64)
"""


# Compiled without a GPU for Ampere and Hopper: the interpreter accepts what the compiler does not.
COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from mask2former.ops import triton_ms_deform_attn as op

def types(kernel, value, precise):
    kinds = {"value": value, "grad": value, "out": value, "levels": "*i64", "X": "constexpr", "C": "constexpr"}
    kinds |= dict.fromkeys(("S", "H", "D", "Q", "P", "samples"), "i32")
    return {name: kinds.get(name, precise) for name in kernel.arg_names}

for kernel in (op._forward, op._backward):
    for value, precise in (("*fp32", "*fp32"), ("*fp64", "*fp64"), ("*fp16", "*fp32"), ("*bf16", "*fp32")):
        for capability in (80, 90):
            source = ASTSource(kernel, types(kernel, value, precise), {"X": 16, "C": 32})
            triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": op.WARPS})
"""


def _succeeds(script: str, **variables: str) -> None:
    environment = {**os.environ, **variables}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow  # the interpreter takes its time
def test_triton_equals_the_reference():
    _succeeds(SCRIPT, TRITON_INTERPRET="1")


@pytest.mark.slow
def test_triton_compiles_for_devices_that_are_not_here(tmp_path):
    _succeeds(COMPILE, TRITON_CACHE_DIR=str(tmp_path), TRITON_INTERPRET="0")
