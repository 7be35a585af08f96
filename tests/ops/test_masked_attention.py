"""The compiled attention gives what `F.scaled_dot_product_attention` gives, gradients included."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from mask2former.ops import backends, build, cpp
from mask2former.ops import masked_attention as module
from mask2former.ops.masked_attention import masked_attention

compiled = pytest.mark.skipif(build.library("cpu") is None, reason="no C++ compiler")

# B, H, Q, S, D: fewer queries and pixels than a tile, whole tiles, odd ones, wider heads than a tile
SIZES = [
    (1, 1, 1, 1, 1),
    (2, 3, 4, 32, 32),
    (2, 2, 9, 100, 8),
    (1, 4, 7, 33, 5),
    (1, 2, 13, 67, 40),
    (3, 1, 100, 300, 32),
]
MASKS = ["none", "all", "half", "few", "a row without", "tiles without"]


def definition(q, k, v, allowed, num_heads):
    q, k, v = (x.unflatten(2, (num_heads, -1)).transpose(1, 2) for x in (q, k, v))
    mask = None if allowed is None else allowed[:, None]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


def draw(sizes, kind="half", dtype=torch.float64):
    batch, heads, queries, pixels, channels = sizes
    generator = torch.Generator().manual_seed(0)

    def rows(count):
        x = torch.randn(batch, count, heads * channels, generator=generator, dtype=torch.float64)
        return (2 * x).to(dtype).requires_grad_()

    chance = {"none": 2, "all": 2, "half": 0.5, "few": 0.05, "a row without": 0.5, "tiles without": 0.5}[kind]
    allowed = torch.rand(batch, queries, pixels, generator=generator) < chance
    allowed[..., 0] = True  # torch's gradient is NaN where a query may attend to nothing
    if kind == "a row without":
        allowed[:, queries // 2] = False
    if kind == "tiles without":
        allowed[:, : queries // 2, pixels // 3 : -1] = False
    return [rows(queries), rows(pixels), rows(pixels), None if kind == "none" else allowed]


def with_grads(function, q, k, v, allowed, heads):
    out = function(q, k, v, allowed, heads)
    return [out.detach(), *torch.autograd.grad(out.sin().sum(), (q, k, v))]


@compiled
@pytest.mark.parametrize("threads", [1, 2, 29])
@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("sizes", SIZES)
def test_result_and_gradients_are_those_of_torch(monkeypatch, sizes, kind, threads):
    """With one thread, too, and with more than there are heads."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    inputs = draw(sizes, kind)
    found = with_grads(masked_attention, *inputs, sizes[1])
    wanted = with_grads(definition, *inputs, sizes[1])
    for one, other in zip(found, wanted):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@compiled
@pytest.mark.parametrize("kind", ["none", "half", "tiles without"])
def test_single_precision_is_as_accurate_as_torch(kind):
    sizes = (2, 8, 100, 777, 32)
    inputs, precise = draw(sizes, kind, torch.float32), draw(sizes, kind)
    found, torchs = (with_grads(f, *inputs, sizes[1]) for f in (masked_attention, definition))
    for one, other, wanted in zip(found, torchs, with_grads(definition, *precise, sizes[1])):
        allowance = 2 * (other - wanted).abs().max() + 1e-6 * wanted.abs().max()
        assert (one - wanted).abs().max() <= allowance


@compiled
def test_gradients_are_derivatives():
    *inputs, allowed = draw((1, 2, 5, 37, 3))
    assert torch.autograd.gradcheck(lambda q, k, v: masked_attention(q, k, v, allowed, 2), inputs)


@compiled
def test_large_logits_do_not_overflow():
    *inputs, allowed = draw((1, 2, 5, 70, 8), dtype=torch.float32)
    inputs = [(1e3 * x).detach().requires_grad_() for x in inputs]
    found, wanted = (with_grads(f, *inputs, allowed, 2) for f in (masked_attention, definition))
    torch.testing.assert_close(found[0], wanted[0])
    assert all(x.isfinite().all() for x in found)


@compiled
@pytest.mark.parametrize("given", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("which", range(3))
def test_what_is_not_finite_shows_in_the_result(which, given):
    *inputs, allowed = draw((1, 2, 9, 70, 8), dtype=torch.float32)
    with torch.no_grad():
        inputs[which][0, 0, 3] = given
    allowed[:, :, 0] = True
    found = with_grads(masked_attention, *inputs, allowed, 2)
    assert not found[0][0, 0].isfinite().all() or not all(x.isfinite().all() for x in found[1:])
    assert found[0][..., 8:].isfinite().all()  # the other head


@compiled
def test_a_query_that_may_attend_to_nothing_gets_zeros_and_gives_none():
    q, k, v, allowed = draw((1, 2, 5, 40, 8), "a row without")
    out, *grads = with_grads(masked_attention, q, k, v, allowed, 2)
    assert (out[:, 2] == 0).all() and (grads[0][:, 2] == 0).all()
    assert (out[:, 1] != 0).all() and all(x.isfinite().all() for x in grads)


@compiled
def test_rows_that_lie_apart_and_masks_of_one_image_for_all():
    q, k, v, allowed = draw((2, 2, 6, 50, 8))
    apart = torch.stack([k, v], 3).detach().requires_grad_()
    allowed = allowed[:1].expand(2, -1, -1)
    found, wanted = (f(q, *apart.unbind(3), allowed, 2) for f in (masked_attention, definition))
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(*(torch.autograd.grad(x.sin().sum(), (q, apart)) for x in (found, wanted)))


@compiled
def test_no_probabilities_are_kept():
    sizes = (1, 4, 64, 512, 8)
    q, k, v, allowed = draw(sizes, dtype=torch.float32)
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.update({x.data_ptr(): x.nbytes}) or x, lambda x: x):
        out = masked_attention(q, k, v, allowed, sizes[1])
    assert sum(kept.values()) == sum(x.nbytes for x in (q, k, v, allowed, out)) + 4 * 64 * 4


@compiled
@pytest.mark.parametrize("why", ["dropout", "half precision", "counted operators", "asked for"])
def test_torch_serves_the_rest(monkeypatch, why):
    monkeypatch.setattr(module, "masked_attention_forward", lambda *_: pytest.fail("the library was called"))
    q, k, v, allowed = draw((1, 2, 5, 40, 8), dtype=torch.bfloat16 if why == "half precision" else torch.float32)
    if why == "asked for":
        monkeypatch.setenv(backends.VARIABLE, "torch")
    with FlopCounterMode(display=False) as counter:
        if why != "counted operators":
            monkeypatch.setattr(cpp, "is_in_torch_dispatch_mode", lambda: False)
        found = masked_attention(q, k, v, allowed, 2, dropout=0.5 if why == "dropout" else 0.0)
    assert counter.get_total_flops() == 2 * (2 * 5 * 40 * 16)  # two products of Q by S by C
    if why != "dropout":
        torch.testing.assert_close(found, definition(q, k, v, allowed, 2))


def test_a_recorded_graph_has_torchs_operator():
    *inputs, allowed = draw((1, 2, 5, 40, 8))
    graph = torch.jit.trace(lambda q, k, v: masked_attention(q, k, v, allowed, 2), [x.detach() for x in inputs])
    assert "scaled_dot_product_attention" in str(graph.graph)
    torch.testing.assert_close(graph(*inputs), masked_attention(*inputs, allowed, 2))


@compiled
@pytest.mark.parametrize("wrong", ["value", "batch", "mask"])
def test_sizes_that_do_not_fit_are_refused(wrong):
    q, k, v, allowed = draw((2, 2, 5, 40, 8))
    inputs = {
        "value": (q, k, v[:, 1:], allowed),
        "batch": (q, k[:1], v[:1], allowed),
        "mask": (q, k, v, allowed[:, :, 1:]),
    }
    with pytest.raises(ValueError, match="num_heads must divide the 16"):
        masked_attention(q, k, v, allowed, 5)
    with pytest.raises(ValueError, match="allowed must be" if wrong == "mask" else "k and v must be"):
        masked_attention(*inputs[wrong], 2)


# Every array is of its size exactly, so that the sanitizer sees any step beside it.
RUN = """
void run(const int64_t* n, int kind, int64_t threads, float odd) {
  const int64_t B = n[0], H = n[1], Q = n[2], S = n[3], D = n[4], of_q = B * Q * H * D, of_k = B * S * H * D;
  std::vector<float> q(of_q, 0.5), k(of_k, 0.25), v(of_k, 1), grad(of_q, 2), out(of_q), lse(B * H * Q);
  std::vector<float> grad_q(of_q), grad_k(of_k), grad_v(of_k);
  for (int64_t i = 0; i < of_q; i += 37) q[i] = odd;
  for (int64_t i = 0; i < of_k; i += 41) (i % 2 ? k : v)[i] = odd;
  std::vector<uint8_t> some(B * Q * S);
  for (int64_t i = 0; kind == 2 && i < B * Q * S; i += 29) some[i] = 1;
  const uint8_t* mask = kind == 0 ? nullptr : some.data();
  refused += m2f_masked_attention_forward_f32(q.data(), k.data(), v.data(), mask, out.data(), lse.data(), B, H, Q, S, D,
                                              0.3, threads);
  refused += m2f_masked_attention_backward_f32(grad.data(), q.data(), k.data(), v.data(), mask, out.data(), lse.data(),
                                               grad_q.data(), grad_k.data(), grad_v.data(), B, H, Q, S, D, 0.3,
                                               threads);
}
"""
MAIN = """
int main() {
  const int64_t cases[][5] = {{1, 1, 1, 1, 1}, {2, 3, 4, 32, 32}, {2, 2, 9, 100, 8}, {1, 1, 7, 33, 5},
                              {1, 2, 13, 67, 40}, {2, 1, 21, 131, 33}, {0, 2, 3, 4, 5}, {1, 0, 3, 4, 5},
                              {1, 2, 0, 4, 5}, {1, 2, 3, 0, 5}, {1, 2, 3, 4, 0}};
  for (auto& n : cases)
    for (int64_t threads : {0, 1, 3})
      for (int kind = 0; kind < 3; ++kind)  // all allowed, none, some
        for (double odd : {0.25, double(NAN), double(INFINITY), -double(INFINITY)}) {
          run(n, kind, threads, float(odd));
          run(n, kind, threads, odd);
        }
  std::printf("%d\\n", refused);
}
"""
DRIVER = '#include <cstdio>\n#include "masked_attention.cpp"\nint refused = 0;\n'
DRIVER += RUN + RUN.replace("float", "double").replace("f32", "f64") + MAIN


@pytest.mark.slow
@pytest.mark.parametrize("target", build.CPU_TARGETS)
def test_sanitizers_find_nothing(target, sanitized):
    """Over odd sizes, masks that allow nothing, NaN and infinity, and sizes that are refused."""
    refused = (11 + 5 * 2) * 2 * 2 * 3 * 4  # cases without threads and with some, dtypes, calls, masks, odd values
    assert sanitized(DRIVER, target) == f"{refused}\n"
