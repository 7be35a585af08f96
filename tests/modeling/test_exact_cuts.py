"""What is left out, folded or recomputed changes no number."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from mask2former.modeling import build_model, mask_costs
from mask2former.modeling.backbone.resnet import BottleneckBlock
from mask2former.modeling.layers.conv import Conv2d, FrozenBatchNorm
from mask2former.modeling.layers.recompute import recompute_blocks
from mask2former.ops import point_sample


def with_statistics(norm):
    for value in norm.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.5, 2)
    return norm


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("norm", [FrozenBatchNorm(6), nn.BatchNorm2d(6).eval()])
def test_a_fixed_norm_in_the_weights_equals_one_after_them(norm, bias):
    torch.manual_seed(0)
    conv = Conv2d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2, bias=bias, norm=with_statistics(norm)).double()
    x = torch.randn(2, 4, 9, 8, dtype=torch.float64, requires_grad=True)
    wanted = conv.norm(nn.functional.conv2d(x, conv.weight, conv.bias, 2, 1, 2, 2))
    found = conv(x)
    torch.testing.assert_close(found, wanted)
    with torch.no_grad():  # then it is multiplied into the weights
        torch.testing.assert_close(conv(x), wanted)
    leaves = [x, conv.weight]
    for one, other in zip(
        torch.autograd.grad(found.sin().sum(), leaves), torch.autograd.grad(wanted.sin().sum(), leaves)
    ):
        torch.testing.assert_close(one, other)


def test_a_norm_in_training_still_counts_the_batch():
    conv = Conv2d(4, 6, 1, norm=nn.BatchNorm2d(6))
    conv(torch.randn(2, 4, 5, 5) + 3)
    assert conv.norm.num_batches_tracked == 1


def with_bias(tiny_cfg):
    torch.manual_seed(0)
    model = build_model(tiny_cfg).double()
    nn.init.normal_(model.sem_seg_head.pixel_decoder.mask_features.bias)
    return model


def test_masks_of_unprojected_features_equal_those_of_projected_ones(tiny_cfg, make_inputs):
    model = with_bias(tiny_cfg).eval()
    with torch.no_grad():
        folded = model.predict_raw(make_inputs())
    model.sem_seg_head._can_fold = False
    torch.testing.assert_close(model.predict_raw(make_inputs()), folded)


def test_masks_of_all_layers_and_their_gradients_do_too(tiny_cfg):
    model, found = with_bias(tiny_cfg), []
    maps = model.backbone(torch.randn(2, 3, 64, 64, dtype=torch.float64))
    for model.sem_seg_head._can_fold in (True, False):
        predictions = model.sem_seg_head(maps, frames=1, every_layer=True)
        assert (predictions.mask_bias is not None) == model.sem_seg_head._can_fold
        masks = predictions.masks()
        masks.sin().sum().backward(retain_graph=True)
        grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        model.zero_grad()
        assert "sem_seg_head.pixel_decoder.mask_features.bias" in grads
        found.append((masks, grads))
    torch.testing.assert_close(*found)


def _pruned(conv):
    return prune.random_unstructured(conv, "weight", 0.5)


def _parametrized(conv):
    return parametrizations.weight_norm(conv)


def _hooked(conv):
    conv.register_forward_hook(lambda module, args, out: 2 * out)
    return conv


def _patched(conv):
    forward = conv.forward
    conv.forward = lambda x: 2 * forward(x)
    return conv


def _replaced(conv):
    return nn.Sequential(conv, nn.Tanh())


@pytest.mark.parametrize("change", [_pruned, _parametrized, _hooked, _patched, _replaced])
def test_a_changed_projection_is_called(tiny_cfg, change):
    model = with_bias(tiny_cfg)
    decoder = model.sem_seg_head.pixel_decoder
    decoder.mask_features = change(decoder.mask_features)
    maps = model.backbone(torch.randn(1, 3, 64, 64, dtype=torch.float64))
    predictions = model.sem_seg_head(maps, frames=1, every_layer=True)
    assert predictions.mask_bias is None
    torch.testing.assert_close(predictions.mask_features[:, :, 0], decoder(maps)[0])


def test_a_projection_to_narrower_maps_is_called(tiny_cfg):
    tiny_cfg.MODEL.SEM_SEG_HEAD.MASK_DIM = 16
    model = with_bias(tiny_cfg)
    maps = model.backbone(torch.randn(1, 3, 64, 64, dtype=torch.float64))
    assert model.sem_seg_head(maps, frames=1, every_layer=False).mask_features.shape[1] == 16


def training_gradients(model, inputs):
    torch.manual_seed(1)
    sum(model(inputs).values()).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("backbone", ["timm/test_resnet", "build_resnet_backbone", "D2DiNAT"])
def test_recomputing_every_block_keeps_all_gradients(tiny_cfg, make_inputs, backbone):
    tiny_cfg.MODEL.BACKBONE.NAME = backbone
    tiny_cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = tiny_cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 16
    tiny_cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 4
    tiny_cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    tiny_cfg.MODEL.DINAT.EMBED_DIM, tiny_cfg.MODEL.DINAT.NUM_HEADS = 8, [1, 1, 2, 2]
    tiny_cfg.MODEL.DINAT.DEPTHS, tiny_cfg.MODEL.DINAT.DILATIONS = [1, 1, 1, 1], [[1], [1], [1], [1]]
    tiny_cfg.MODEL.MASK_FORMER.DROPOUT = 0.1
    torch.manual_seed(0)
    plain = build_model(tiny_cfg).double()
    recomputing = copy.deepcopy(plain)
    recompute_blocks(recomputing)
    wanted, found = (training_gradients(model, make_inputs()) for model in (plain, recomputing))
    torch.testing.assert_close(found, wanted)


def test_the_key_sets_every_block(tiny_cfg):
    tiny_cfg.MODEL.BACKBONE.NAME, tiny_cfg.MODEL.ACTIVATION_CHECKPOINTING = "build_resnet_backbone", True
    tiny_cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    blocks = [m for m in build_model(tiny_cfg).modules() if isinstance(m, BottleneckBlock)]
    assert len(blocks) == 16 and all(block.recompute for block in blocks)


def test_channels_last_keeps_predictions(tiny_cfg, make_inputs):
    models = []
    for tiny_cfg.MODEL.CHANNELS_LAST in (False, True):
        torch.manual_seed(0)
        models.append(build_model(tiny_cfg).double().eval())
    weight = next(p for p in models[1].backbone.parameters() if p.dim() == 4 and min(p.shape) > 1)
    assert weight.is_contiguous(memory_format=torch.channels_last)
    raw = [model.predict_raw(make_inputs()) for model in models]
    torch.testing.assert_close(raw[1], raw[0])


def test_costs_of_some_samples_at_a_time_are_those_of_all(tiny_cfg, make_inputs, monkeypatch):
    torch.manual_seed(0)
    model = build_model(tiny_cfg).double()
    torch.manual_seed(1)
    wanted = model(make_inputs())
    monkeypatch.setitem(mask_costs._LOGITS, "cpu", 1)
    torch.manual_seed(1)
    torch.testing.assert_close(model(make_inputs()), wanted)


def test_uncertain_points_of_portions_are_uncertain_too(monkeypatch):
    torch.manual_seed(0)
    logits = (torch.arange(32.0) - 15.5).expand(5, 32, 32)  # zero in the middle column
    monkeypatch.setattr(point_sample, "masks_at_once", lambda *_: 2)
    points = point_sample.uncertain_points(logits, 100, 3.0, 0.75)
    assert points.shape == (5, 100, 2)
    assert ((points[:, :75, 0] - 0.5).abs() < 0.25).all()  # the least certain quarter of the candidates is kept


@pytest.mark.slow
def test_a_compiled_model_predicts_the_same(tiny_cfg, make_inputs):
    raw, states = [], []
    for tiny_cfg.MODEL.COMPILE in (False, True):
        torch.manual_seed(0)
        model = build_model(tiny_cfg).eval()
        states.append(list(model.state_dict()))
        raw.append(model.predict_raw(make_inputs()))
    assert states[0] == states[1]
    torch.testing.assert_close(raw[1], raw[0], rtol=1e-3, atol=1e-4)


def test_matched_masks_of_unprojected_features_are_those_of_projected_ones(tiny_cfg):
    torch.manual_seed(0)
    model = build_model(tiny_cfg).double()
    nn.init.normal_(model.sem_seg_head.pixel_decoder.mask_features.bias)
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    maps = model.backbone(images)
    wanted = model.sem_seg_head(maps, frames=1, every_layer=True)
    model.eval()
    final = model.sem_seg_head(maps, frames=1, every_layer=False)
    torch.testing.assert_close(final.final_masks(), wanted.final_masks())
    chosen = torch.tensor([[3, 1, 1]])
    assert final.mask_bias is not None
    torch.testing.assert_close(final.masks_of([chosen])[0], wanted.final_masks()[0, chosen[0]])
