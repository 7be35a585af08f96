"""The custom op around neighbourhood attention: what tracers, autograd and careless callers meet."""

import pytest
import torch
from torch import nn

from mask2former.ops import build, neighborhood_attention_2d
from mask2former.ops.neighborhood_attn import _backward_op, _op
from mask2former.ops.neighborhood_tiled import neighborhood_attention_2d_tiled

# B batch, N heads, H W pixels, D channels per head, k kernel size


@pytest.fixture(autouse=True)
def compiled(monkeypatch):
    if build.library("cpu") is None:
        pytest.skip("no compiler")
    monkeypatch.setenv("MASK2FORMER_OPS", "cpp")


def make(H=7, W=9, kernel_size=3, B=1, N=2, D=4, dtype=torch.float32, grad=False, seed=0):
    g = torch.Generator().manual_seed(seed)
    shapes = [(B, N, H, W, D)] * 3 + [(N, 2 * kernel_size - 1, 2 * kernel_size - 1)]
    return [torch.randn(s, generator=g, dtype=torch.float64).to(dtype).requires_grad_(grad) for s in shapes]


class Attention(nn.Module):
    def forward(self, q, k, v, rpb):
        return neighborhood_attention_2d(q, k, v, rpb, 3, 2, 0.7)


@pytest.mark.parametrize("with_rpb", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_op_is_what_torch_expects_of_one(with_rpb, dtype):
    q, k, v, rpb = make(dtype=dtype, grad=True)
    torch.library.opcheck(_op, (q, k, v, rpb if with_rpb else None, 3, 2, 0.7))


def test_the_backward_op_is_what_torch_expects_of_one():
    q, k, v, rpb = make()
    out, lse = _op(q, k, v, rpb, 3, 2, 0.7)
    torch.library.opcheck(_backward_op, (out.cos(), q, k, v, rpb, out, lse, 3, 2, 0.7))


def test_export_keeps_one_node_for_any_size():
    size = {2: torch.export.Dim("height", min=6, max=99), 3: torch.export.Dim("width", min=6, max=99)}
    program = torch.export.export(Attention(), tuple(make()), dynamic_shapes=(size, size, size, None))
    assert [n.name for n in program.graph.nodes if "neighborhood" in str(n.target)] == ["neighborhood_attention_2d"]
    inputs = make(12, 31)
    torch.testing.assert_close(program.module()(*inputs), Attention()(*inputs))


def test_an_exported_graph_runs_without_a_compiler(monkeypatch):
    inputs = make()
    program = torch.export.export(Attention(), tuple(inputs))
    monkeypatch.setenv("MASK2FORMER_OPS", "torch")
    torch.testing.assert_close(program.module()(*inputs), neighborhood_attention_2d_tiled(*inputs, 3, 2, 0.7))


def test_compile_keeps_result_and_gradients():
    inputs = make(grad=True)
    compiled = torch.compile(Attention(), backend="aot_eager", fullgraph=True)
    out, expected = compiled(*inputs), Attention()(*inputs)
    torch.testing.assert_close(out, expected)
    for got, wanted in zip(torch.autograd.grad(out.sum(), inputs), torch.autograd.grad(expected.sum(), inputs)):
        torch.testing.assert_close(got, wanted)


def test_half_precision_maps_take_a_bias_in_single_precision():
    q, k, v, rpb = make(dtype=torch.bfloat16, grad=True)
    rpb = rpb.detach().float().requires_grad_()  # as under autocast
    out = neighborhood_attention_2d(q, k, v, rpb, 3, 2, 0.7)
    assert out.dtype == torch.bfloat16
    out.sum().backward()
    assert (q.grad.dtype, rpb.grad.dtype) == (torch.bfloat16, torch.float32)


def test_double_backward_is_refused():
    inputs = make(grad=True)
    (grad,) = torch.autograd.grad(Attention()(*inputs).sin().sum(), inputs[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="neighborhood_attention_2d_backward"):
        grad.sum().backward()


def test_random_shapes_agree_with_plain_torch():
    g = torch.Generator().manual_seed(0)

    def draw(*choices):
        return choices[int(torch.randint(len(choices), (), generator=g))]

    for seed in range(60):
        kernel_size, dilation = draw(1, 3, 5, 7, 9, 11, 13), draw(1, 1, 2, 3, 7)
        H, W = draw(1, 4, 8, 13, 25), draw(1, 3, 16, 21, 70)
        inputs = make(H, W, kernel_size, draw(1, 2), draw(1, 3), draw(1, 7, 8, 32, 45), torch.float64, True, seed)
        settings = kernel_size, dilation, 0.3
        results = []
        for op in (neighborhood_attention_2d, neighborhood_attention_2d_tiled):
            out = op(*inputs, *settings)
            results.append([out, *torch.autograd.grad(out.sin().sum(), inputs)])
        torch.testing.assert_close(*results, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_do_not_show(threads, monkeypatch):
    inputs = make(67, 9, 5, N=1, dtype=torch.float64, grad=True)  # fewer heads than threads: rows are shared out
    expected = neighborhood_attention_2d_tiled(*inputs, 5, 1, 0.7)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    out = neighborhood_attention_2d(*inputs, 5, 1, 0.7)
    torch.testing.assert_close(out, expected)
    for got, wanted in zip(
        torch.autograd.grad(out.sin().sum(), inputs), torch.autograd.grad(expected.sin().sum(), inputs)
    ):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("which", range(4))
def test_what_is_not_finite_reaches_only_who_sees_it(value, which):
    inputs = make(9, 30, 3, N=1, dtype=torch.float64)
    far = (slice(None),) * 3 + (slice(8, None),)  # the kernel reaches one column
    expected = neighborhood_attention_2d(*inputs, 3, 1, 0.7)[far]
    if which == 3:
        inputs[3][0, 2, 2] = value  # the bias of each query for itself
        assert neighborhood_attention_2d(*inputs, 3, 1, 0.7).isfinite().all() == (value < 0)
    else:
        inputs[which][0, 0, 4, 6] = value
        out = neighborhood_attention_2d(*inputs, 3, 1, 0.7)
        assert not out[:, :, 4, 6].isfinite().all()
        torch.testing.assert_close(out[far], expected)
    inputs = [x.requires_grad_() for x in inputs]
    neighborhood_attention_2d(*inputs, 3, 1, 0.7).sum().backward()  # no crash


def test_wrong_arguments_are_named():
    q, k, v, rpb = make(6, 6, 3)
    wrong = [
        (ValueError, "q must be .B,N,H,W,D.*got shape", (q[0], k, v, rpb, 3, 1)),
        (ValueError, "k must be .1, 2, 6, 6, 4. as q, got shape .1, 2, 5, 6, 4.", (q, k[:, :, 1:], v, rpb, 3, 1)),
        (ValueError, "v must be", (q, k, v[..., :2], rpb, 3, 1)),
        (ValueError, "kernel_size must be odd, got 4", (q, k, v, rpb, 4, 1)),
        (ValueError, "dilation must be at least 1, got 0", (q, k, v, rpb, 3, 0)),
        (ValueError, r"rpb must be .*here \(2, 9, 9\), got \(2, 5, 5\)", (q, k, v, rpb, 5, 1)),
        (TypeError, "q must be floating, got torch.int64", (q.long(), k, v, rpb, 3, 1)),
        (TypeError, "k must be torch.float32 as q, got torch.float64", (q, k.double(), v, rpb, 3, 1)),
        (TypeError, "rpb must be floating, got torch.int64", (q, k, v, rpb.long(), 3, 1)),
        (ValueError, "v must be on q's device cpu, got meta", (q, k, v.to("meta"), rpb, 3, 1)),
        (ValueError, "rpb must be on q's device cpu, got meta", (q, k, v, rpb.to("meta"), 3, 1)),
    ]
    for error, message, arguments in wrong:
        with pytest.raises(error, match=message):
            neighborhood_attention_2d(*arguments, 1.0)
