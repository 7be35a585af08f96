"""MaskFormer's query decoder."""

import pytest
import torch
from torch import nn

from mask2former.modeling.layers.detr import DecoderLayer, EncoderLayer
from mask2former.modeling.transformer_decoder.standard import StandardTransformerDecoder

SIZES = {"hidden_channels": 32, "num_queries": 5, "num_heads": 4, "hidden_ffn_channels": 64, "mask_channels": 16}


def build(in_channels=32, num_classes=3, encoder_layers=1, num_layers=3, **kwargs):
    torch.manual_seed(0)
    return StandardTransformerDecoder(
        in_channels, num_classes=num_classes, encoder_layers=encoder_layers, num_layers=num_layers, **SIZES, **kwargs
    )


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("ours", [EncoderLayer, DecoderLayer])
def test_without_positions_a_layer_is_pytorchs(ours, pre_norm):
    torch.manual_seed(0)
    theirs = {EncoderLayer: nn.TransformerEncoderLayer, DecoderLayer: nn.TransformerDecoderLayer}[ours]
    reference = theirs(32, 4, 64, dropout=0.0, batch_first=True, norm_first=pre_norm)
    layer = ours(32, num_heads=4, hidden_channels=64, dropout=0.0, pre_norm=pre_norm)
    layer.load_state_dict(reference.state_dict())
    x, memory, nowhere = torch.randn(2, 5, 32), torch.randn(2, 7, 32), torch.zeros(1, 32)
    more = (memory,) if ours is DecoderLayer else ()
    torch.testing.assert_close(layer(x, nowhere, *more, *more), reference(x, *more))


def test_positions_change_who_attends_to_whom_and_not_what_is_read():
    """With one pixel there is nothing to choose, so its position cannot matter."""
    decoder = build(encoder_layers=0)
    layer = decoder.transformer.decoder.layers[0]
    x, values = torch.randn(1, 5, 32), torch.randn(1, 1, 32)
    here, there = (layer(x, torch.zeros(1, 32), values + shift, values) for shift in (0.0, 3.0))
    torch.testing.assert_close(here, there)


def test_predictions_of_every_layer_end_with_the_final_one():
    decoder, memory, features = build(), torch.randn(2, 32, 6, 7), torch.randn(2, 16, 12, 14)
    every = decoder([memory], features)
    final = decoder([memory], features, every_layer=False)
    assert every.class_logits.shape == (3, 2, 5, 4)
    assert every.masks().shape == (3, 2, 5, 1, 12, 14)
    torch.testing.assert_close(every.class_logits[-1:], final.class_logits)
    torch.testing.assert_close(every.masks()[-1], final.final_masks())


def test_where_the_pixels_are_matters():
    decoder, memory, features = build(), torch.randn(2, 32, 6, 7), torch.randn(2, 16, 12, 14)
    a, b = (decoder([m], features).class_logits for m in (memory, memory.flip(-1)))
    assert not torch.allclose(a, b)


@pytest.mark.parametrize(
    ("in_channels", "enforced", "projects"), [(32, False, False), (32, True, True), (8, False, True)]
)
def test_the_memory_is_projected_where_it_must_be(in_channels, enforced, projects):
    decoder = build(in_channels, enforce_input_proj=enforced)
    assert ("input_proj.weight" in decoder.state_dict()) == projects


def test_without_classes_there_is_no_layer_for_them():
    decoder = build(num_classes=None)
    assert not any(name.startswith("class_embed") for name in decoder.state_dict())
    assert decoder([torch.randn(1, 32, 4, 4)], torch.randn(1, 16, 8, 8)).class_logits is None
