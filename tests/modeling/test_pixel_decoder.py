import torch

from mask2former.modeling.backbone.shape import ShapeSpec
from mask2former.modeling.pixel_decoder.msdeform import MSDeformAttn, MSDeformAttnPixelDecoder, pixel_centres


def build(strides):
    maps = {f"res{i + 2}": ShapeSpec(8 * 2**i, s) for i, s in enumerate(strides)}
    return MSDeformAttnPixelDecoder(
        maps,
        encoder_in=["res3", "res4", "res5"],
        channels=32,
        mask_channels=16,
        norm="GN",
        common_stride=4,
        num_layers=1,
        num_heads=4,
        num_points=2,
        hidden_channels=64,
        dropout=0.0,
    )


def test_maps_of_one_stride_keep_the_published_order():
    """With a dilated res5, res4 has its stride, too; the projections are still res5's, res4's, res3's."""
    decoder = build((4, 8, 16, 16))
    assert [proj[0].in_channels for proj in decoder.input_proj] == [64, 32, 16]


def test_shapes():
    maps = {f"res{i + 2}": torch.randn(2, 8 * 2**i, 64 // 2**i, 96 // 2**i) for i in range(4)}
    mask_features, memory = build((4, 8, 16, 32))(maps)
    assert mask_features.shape == (2, 16, 64, 96)
    assert [tuple(m.shape[1:]) for m in memory] == [(32, 8, 12), (32, 16, 24), (32, 32, 48)]


def test_fresh_attention_looks_around_in_a_circle():
    """At initialisation head h looks along the angle 2 pi h / H, point p at p + 1 pixels, on every level."""
    bias = MSDeformAttn(32, num_levels=3, num_heads=4, num_points=2).sampling_offsets.bias.view(4, 3, 2, 2)
    wanted = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    torch.testing.assert_close(bias, (wanted[:, None, None] * torch.tensor([1.0, 2])[:, None]).expand_as(bias))


def test_pixel_centres():
    centres = pixel_centres(2, 4, device=torch.device("cpu"), dtype=torch.float16)
    assert centres.dtype == torch.float32
    assert centres[0].tolist() == [0.125, 0.25]
    assert centres[-1].tolist() == [0.875, 0.75]
