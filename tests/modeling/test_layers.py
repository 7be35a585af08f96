import torch
from torch import nn

from mask2former.modeling.layers.attention import CrossAttentionLayer, MultiheadAttention, SelfAttentionLayer
from mask2former.modeling.layers.position_encoding import sine_position_encoding

LIKE = {"device": torch.device("cpu"), "dtype": torch.float64}


def test_attention_equals_torchs_own():
    torch.manual_seed(0)
    ours, theirs = MultiheadAttention(16, 4).double(), nn.MultiheadAttention(16, 4, batch_first=True).double()
    theirs.load_state_dict(ours.state_dict())  # the same names and shapes
    q, k, v = (torch.randn(2, n, 16, dtype=torch.float64) for n in (5, 7, 7))
    allowed = torch.rand(2, 5, 7) > 0.4
    allowed[:, :, 0] = True
    wanted = theirs(q, k, v, attn_mask=~allowed.repeat_interleave(4, 0))[0]
    torch.testing.assert_close(ours(q, k, v, allowed), wanted)


def test_forbidden_pixels_have_no_influence():
    torch.manual_seed(0)
    layer = CrossAttentionLayer(8, 2, 0.0, pre_norm=True).double()
    x, position = torch.randn(1, 3, 8).double(), torch.randn(3, 8).double()
    memory = torch.randn(1, 6, 8).double()
    allowed = torch.ones(1, 3, 6, dtype=torch.bool)
    allowed[..., 4:] = False
    changed = memory.clone()
    changed[:, 4:] += 10
    torch.testing.assert_close(
        layer(x, position, memory, memory, allowed), layer(x, position, changed, changed, allowed)
    )


def test_self_attention_does_not_depend_on_query_order():
    torch.manual_seed(0)
    layer = SelfAttentionLayer(8, 2, 0.0, pre_norm=False).double()
    x, position, order = torch.randn(1, 5, 8).double(), torch.randn(5, 8).double(), torch.randperm(5)
    torch.testing.assert_close(layer(x[:, order], position[order]), layer(x, position)[:, order])


def test_sine_encoding():
    encoding = sine_position_encoding((1, 6, 9), 16, temporal=False, **LIKE)
    assert encoding.shape == (16, 1, 6, 9)
    torch.testing.assert_close(encoding[0::2] ** 2 + encoding[1::2] ** 2, torch.ones(8, 1, 6, 9).double())
    assert (encoding[:8] == encoding[:8, :, :, :1]).all()  # rows do not know their column
    assert (encoding[8:] == encoding[8:, :, :1]).all()
    assert len({tuple(v) for v in encoding.flatten(1).t().tolist()}) == 54


def test_time_is_told_only_when_asked():
    still = sine_position_encoding((3, 4, 4), 16, temporal=False, **LIKE)
    assert (still == still[:, :1]).all()
    moving = sine_position_encoding((3, 4, 4), 16, temporal=True, **LIKE)
    assert not torch.allclose(moving[:, 0], moving[:, 1])
    assert not torch.allclose(moving[:, :1], still[:, :1])
