import logging
import threading

import pytest
import torch

from mask2former.ops import backends, build, cpp, device_check, masked_attention, ms_deform_attn, neighborhood_cpp
from mask2former.utils.errors import UserError


@pytest.fixture(autouse=True)
def _forget(monkeypatch):
    monkeypatch.delenv(backends.VARIABLE, raising=False)
    backends._choose.cache_clear()
    yield
    backends._choose.cache_clear()


@pytest.mark.parametrize("op", backends.OPS)
@pytest.mark.parametrize(
    ("device", "can_run", "chosen"),
    [
        ("cpu", {"cpp"}, "cpp"),
        ("cpu", set(), "torch"),
        ("cuda", {"cuda", "triton"}, "cuda"),
        ("cuda", set(), "torch"),
        ("mps", {"cpp", "cuda", "triton"}, "torch"),
    ],
)
def test_the_best_that_runs_is_chosen_and_said_once(monkeypatch, caplog, op, device, can_run, chosen):
    monkeypatch.setattr(backends, "_runs", lambda name, required: name in can_run | {"torch"})
    monkeypatch.setattr(device_check, "misfit", lambda *_: None)
    if device not in backends.OPS[op]:
        chosen = "torch"
    with caplog.at_level(logging.INFO):
        assert [backends.backend(op, device) for _ in range(3)] == [chosen] * 3
    assert [r.getMessage() for r in caplog.records] == [f"{op} on {device}: {chosen}"]


def test_triton_serves_gpus_without_a_compiler(monkeypatch):
    monkeypatch.setattr(backends, "_runs", lambda name, required: name in ("triton", "torch"))
    monkeypatch.setattr(device_check, "misfit", lambda *_: None)
    assert backends.backend("ms_deform_attn", "cuda") == "triton"
    assert backends.backend("neighborhood_attention_2d", "cuda") == "torch"


def test_a_forced_backend_is_used_or_answered(monkeypatch):
    monkeypatch.setenv(backends.VARIABLE, "torch")
    assert backends.backend("ms_deform_attn", "cpu") == "torch"
    for wrong in ("cuda", "fast"):
        monkeypatch.setenv(backends.VARIABLE, wrong)
        with pytest.raises(UserError, match=f"MASK2FORMER_OPS={wrong}.* can use cpp, torch"):
            backends.backend("ms_deform_attn", "cpu")


def test_a_forced_backend_that_cannot_run_is_an_error(monkeypatch):
    monkeypatch.setattr(build, "_open", lambda kind: build.BuildError("no compiler", failed=False))
    monkeypatch.setenv(backends.VARIABLE, "cpp")
    with pytest.raises(UserError, match="no compiler"):
        ms_deform_attn(
            torch.ones(1, 1, 1, 1), torch.ones(1, 2).long(), torch.ones(1, 1, 1, 1, 1, 2), torch.ones(1, 1, 1, 1, 1)
        )
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv(backends.VARIABLE, "triton")
    with pytest.raises(UserError, match="package triton is not installed"):
        backends.backend("ms_deform_attn", "cuda")


PASSES = {
    "ms_deform_attn": (cpp, ["ms_deform_attn_forward", "ms_deform_attn_backward"]),
    "neighborhood_attention_2d": (
        neighborhood_cpp,
        ["neighborhood_attention_2d_forward", "neighborhood_attention_2d_backward"],
    ),
    "masked_attention": (masked_attention, ["masked_attention_forward", "masked_attention_backward"]),
}


@pytest.mark.skipif(build.library("cpu") is None, reason="no compiler")
@pytest.mark.parametrize("op", PASSES)
@pytest.mark.parametrize("wrong", [0, 1])
def test_an_op_with_wrong_numbers_is_found_and_not_used(monkeypatch, caplog, op, wrong):
    module, passes = PASSES[op]
    assert backends.backend(op, "cpu") == "cpp"
    right = getattr(module, passes[wrong])

    def off(*arguments):
        result = right(*arguments)
        first = result if isinstance(result, torch.Tensor) else result[0]
        first[(0,) * first.dim()] += 1
        return result

    monkeypatch.setattr(module, passes[wrong], off)
    backends._choose.cache_clear()
    assert backends.backend(op, "cpu") == "torch"
    assert f"cpp implementation of {op} gives wrong numbers" in caplog.text
    monkeypatch.setenv(backends.VARIABLE, "cpp")
    with pytest.raises(UserError, match="wrong numbers.*Unset MASK2FORMER_OPS"):
        backends.backend(op, "cpu")


def test_the_current_gpu_is_tried(monkeypatch):
    """In the thread that tries it, where torch would begin with the first."""
    entered = []

    class Place:
        def __init__(self, index):
            self.index = index

        def __enter__(self):
            entered.append((self.index, threading.get_ident()))

        def __exit__(self, *_):
            pass

    def check(*_):
        assert entered[0][1] == threading.get_ident() != threading.main_thread().ident
        return [(torch.zeros(1), torch.zeros(1))]

    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch.cuda, "device", Place)
    monkeypatch.setitem(device_check._CHECKS, "ms_deform_attn", check)
    assert device_check.misfit("ms_deform_attn", "cpp", "cuda") is None
    assert [index for index, _ in entered] == [3]
