"""Merging of patches by `nn.Unfold`, as mmdetection's Swin does it, equals ours on converted tensors."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mask2former.checkpoint.formats.mmdet_swin import MMDETECTION_SWIN, from_unfolded, to_unfolded
from mask2former.modeling.backbone.swin import PatchMerging, SwinTransformer, relative_position_index


def test_merging_by_unfold():
    channels, scale, shift, reduction = 6, torch.rand(24), torch.rand(24), torch.randn(12, 24)
    x = torch.randn(2, 8, 10, channels)
    squares = nn.Unfold(kernel_size=2, stride=2)(x.permute(0, 3, 1, 2)).transpose(1, 2)  # [2,20,24]
    expected = F.linear(F.layer_norm(squares, (24,), scale, shift), reduction).view(2, 4, 5, 12)

    ours = PatchMerging(channels)
    names = {"norm.weight": scale, "norm.bias": shift, "reduction.weight": reduction}
    ours.load_state_dict({name: from_unfolded(tensor) for name, tensor in names.items()})
    torch.testing.assert_close(ours(x), expected)


def test_the_order_of_channels_goes_back():
    x = torch.randn(5, 24)
    assert torch.equal(to_unfolded(from_unfolded(x)), x) and torch.equal(from_unfolded(to_unfolded(x)), x)
    assert not torch.equal(from_unfolded(x), x)


def test_indices_are_the_same():
    """Theirs: rows of the bias table from two sequences, the second one backwards."""
    window = 7
    steps = (torch.arange(window)[:, None] * (2 * window - 1) + torch.arange(window)).flatten()
    assert torch.equal((steps[:, None] + steps).flip(1), relative_position_index(window))


@pytest.mark.parametrize("pretrain_size", [None, 64])
def test_there_and_back(pretrain_size):
    model = SwinTransformer(channels=8, num_heads=(1, 2, 4, 8), window=2, pretrain_size=pretrain_size)
    ours = {f"backbone.{name}": tensor for name, tensor in model.state_dict().items()}
    theirs = MMDETECTION_SWIN.from_ours(ours)
    assert not any(name.startswith(("layers.", "backbone.")) for name in theirs)
    if pretrain_size:
        assert theirs["absolute_pos_embed"].shape == (1, 256, 8)
    back = MMDETECTION_SWIN.to_ours(theirs)
    assert back.keys() == ours.keys() and all(torch.equal(back[name], tensor) for name, tensor in ours.items())
