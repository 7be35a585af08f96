"""MaskFormer's pixel decoders."""

import pytest
import torch
import torch.nn.functional as F

from mask2former.modeling.backbone.shape import ShapeSpec
from mask2former.modeling.pixel_decoder.fpn import BasePixelDecoder, TransformerEncoderPixelDecoder

SHAPES = {f"res{i + 2}": ShapeSpec(8 * 2**i, 4 * 2**i) for i in range(4)}
WIDTHS = {"channels": 32, "mask_channels": 16, "norm": "GN"}
ENCODER = {"num_layers": 2, "num_heads": 4, "hidden_channels": 64, "dropout": 0.0, "pre_norm": False}


def make_maps(height=65, width=96):
    """Maps of an image of odd size, each half of the finer one, rounded up."""
    g = torch.Generator().manual_seed(0)
    sizes = [(-(-height // 2**i), -(-width // 2**i)) for i in range(4)]
    return {name: torch.randn(2, 8 * 2**i, *sizes[i], generator=g) for i, name in enumerate(SHAPES)}


def test_each_map_adds_to_the_sum_of_the_coarser_ones():
    torch.manual_seed(0)
    decoder, maps = BasePixelDecoder(SHAPES, **WIDTHS), make_maps()
    mask_features, memory = decoder(maps)
    out = decoder.layer_4(maps["res5"])
    for number, name in ((3, "res4"), (2, "res3"), (1, "res2")):
        lateral = getattr(decoder, f"adapter_{number}")(maps[name])
        out = getattr(decoder, f"layer_{number}")(lateral + F.interpolate(out, lateral.shape[-2:]))
    torch.testing.assert_close(mask_features, decoder.mask_features(out))
    assert mask_features.shape == (2, 16, 65, 96)
    assert memory == []


def test_the_order_of_the_names_does_not_matter():
    torch.manual_seed(0)
    backwards = BasePixelDecoder(dict(reversed(SHAPES.items())), **WIDTHS)
    assert backwards.adapter_1.in_channels == 8 and backwards.layer_4.in_channels == 64


def test_the_encoders_output_is_the_memory_and_feeds_the_mask_features():
    torch.manual_seed(0)
    decoder, maps = TransformerEncoderPixelDecoder(SHAPES, **WIDTHS, **ENCODER), make_maps()
    mask_features, (memory,) = decoder(maps)
    assert memory.shape == (2, 32, 9, 12)
    gradient = torch.autograd.grad(mask_features.sum(), memory, retain_graph=True)[0]
    assert gradient.abs().sum() > 0
    # every pixel of the memory has seen every pixel of the coarsest map
    maps["res5"].requires_grad_()
    _, (memory,) = decoder(maps)
    seen = torch.autograd.grad(memory[0, 0, 0, 0], maps["res5"])[0][0]
    assert (seen.abs().sum(0) > 0).all()


@pytest.mark.parametrize("pre_norm", [False, True])
def test_every_parameter_is_trained(pre_norm):
    decoder = TransformerEncoderPixelDecoder(SHAPES, **WIDTHS, **{**ENCODER, "pre_norm": pre_norm})
    mask_features, _ = decoder(make_maps())
    mask_features.square().mean().backward()
    assert [name for name, p in decoder.named_parameters() if p.grad is None] == []
    assert hasattr(decoder.transformer.encoder.norm, "weight") == pre_norm
