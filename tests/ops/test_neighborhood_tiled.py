import itertools

import pytest
import torch

from mask2former.ops import neighborhood_attention_2d, neighborhood_tiled
from mask2former.ops.neighborhood_tiled import neighborhood_attention_2d_tiled


def make(H, W, kernel_size, B=1, N=2, D=3, grad=False):
    g = torch.Generator().manual_seed(0)
    shapes = [(B, N, H, W, D)] * 3 + [(N, 2 * kernel_size - 1, 2 * kernel_size - 1)]
    return [torch.randn(s, generator=g, dtype=torch.float64, requires_grad=grad) for s in shapes]


def gradients(inputs, *settings):
    out = neighborhood_attention_2d_tiled(*inputs, *settings)
    return [out.detach(), *torch.autograd.grad(out.sin().sum(), inputs)]


def test_neither_tiles_nor_steps_show(monkeypatch):
    inputs, settings = make(29, 38, 5, B=2, grad=True), (5, 2, 0.7)
    expected = gradients(inputs, *settings)
    for tile, logits in itertools.product((1, 3, 30), (1, 5000)):
        monkeypatch.setattr(neighborhood_tiled, "TILE", tile)
        monkeypatch.setattr(neighborhood_tiled, "MAX_LOGITS", logits)
        neighborhood_tiled._runs.cache_clear()
        for got, wanted in zip(gradients(inputs, *settings), expected):
            torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-11)
    neighborhood_tiled._runs.cache_clear()


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


@pytest.mark.parametrize(("H", "W"), [(9, 12), (3, 20)])
@pytest.mark.parametrize("with_rpb", [True, False])
def test_the_ops_passes_are_the_functions(H, W, with_rpb):
    """A graph that holds the custom op may run where nothing can be compiled."""
    inputs, settings = make(H, W, 3, grad=True), (3, 2, 0.7)
    q, k, v, rpb = (x.detach() for x in inputs)
    rpb = rpb if with_rpb else None
    out, lse = neighborhood_tiled.neighborhood_attention_2d_forward(q, k, v, rpb, *settings)
    grads = neighborhood_tiled.neighborhood_attention_2d_backward(out.cos(), q, k, v, rpb, out, lse, *settings)
    if with_rpb:
        expected = gradients(inputs, *settings)
    else:
        maps = inputs[:3]
        result = neighborhood_attention_2d_tiled(*maps, None, *settings)
        expected = [result.detach(), *torch.autograd.grad(result.sin().sum(), maps), None]
    torch.testing.assert_close([out, *grads[:3]], expected[:4])
    if with_rpb:
        torch.testing.assert_close(grads[3], expected[4])
    else:
        assert grads[3] is None
