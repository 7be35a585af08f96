"""MaskFormer's own parts put together by a recipe, and the per-pixel baselines."""

import pytest
import torch
import torch.nn.functional as F

from mask2former.modeling import build_model
from mask2former.structures import LabelSet
from mask2former.utils.errors import UserError

LABELS = LabelSet(("cat", "dog", "car", "sky", "road"), thing_ids=(0, 1, 2))
MASKFORMER = {
    "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "TransformerEncoderPixelDecoder",
    "MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME": "StandardTransformerDecoder",
    "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": "transformer_encoder",
    "MODEL.MASK_FORMER.MASK_LOSS": "focal",
    "MODEL.MASK_FORMER.TRAIN_NUM_POINTS": 0,
    "MODEL.MASK_FORMER.DEC_LAYERS": 3,
}
BASE = {
    "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "BasePixelDecoder",
    "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": "res5",
}
PER_PIXEL = {
    **BASE,
    "MODEL.META_ARCHITECTURE": "SemanticSegmentor",
    "MODEL.SEM_SEG_HEAD.NAME": "PerPixelBaselineHead",
    "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT": 2.0,
    "MODEL.MASK_FORMER.DEC_LAYERS": 3,
    "MODEL.MASK_FORMER.TEST.PANOPTIC_ON": False,
    "MODEL.MASK_FORMER.TEST.INSTANCE_ON": False,
}
PLUS = {**PER_PIXEL, "MODEL.SEM_SEG_HEAD.NAME": "PerPixelBaselinePlusHead", "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": 5}


@pytest.fixture
def build(tiny_cfg):
    def build(*keys, **more):
        for values in (*keys, more):
            tiny_cfg.merge_from_list([part for pair in values.items() for part in pair])
        torch.manual_seed(0)
        return build_model(tiny_cfg, LABELS)

    return build


def with_labels(inputs):
    """The same with maps of class ids; the first rows have none."""
    for x in inputs:
        x["sem_seg"] = torch.randint(5, tuple(x["image"].shape[1:]), dtype=torch.int32)
        x["sem_seg"][:9] = 255
    return inputs


@pytest.mark.parametrize("more", [{}, BASE, {"MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": "pixel_embedding"}])
def test_it_trains_with_a_loss_after_each_layer(build, make_inputs, more):
    model = build(MASKFORMER, more)
    losses = model(make_inputs())
    assert set(losses) == {f"loss_{t}{s}" for t in ("ce", "mask", "dice") for s in ("", "_0", "_1")}
    sum(losses.values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("counts", [(0, 0), (0, 2), (12, 1)])
def test_any_number_of_targets(build, make_inputs, counts):
    model = build(MASKFORMER)
    losses = model(make_inputs(counts))
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    if sum(counts) == 0:
        assert losses["loss_mask"] == losses["loss_dice"] == 0


def test_the_loss_is_not_random(build, make_inputs):
    model = build(MASKFORMER)
    first, second = model(make_inputs()), model(make_inputs())
    assert first == second


def test_bfloat16_autocast_trains(build, make_inputs):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = build(MASKFORMER)(make_inputs())
    assert all(v.dtype == torch.float32 and v.isfinite() for v in losses.values())
    sum(losses.values()).backward()


def test_filled_segments_leave_no_pixel_of_a_kept_query_empty(build, make_inputs):
    """Where one segment is left, it is everywhere."""
    model = build(MASKFORMER, {"MODEL.MASK_FORMER.TEST.PANOPTIC_FILL": True}).eval()
    logits, masks = torch.zeros(1, 8, 6), torch.full((1, 8, 16, 24), -9.0)
    logits[0, :, 5], logits[0, 0, 3] = 9, 20
    masks[0, 0, 4:8, 4:8] = 9
    inputs = make_inputs(counts=(1,), sizes=((64, 96),))
    segments, info = model.postprocess({"pred_logits": logits, "pred_masks": masks}, inputs)[0]["panoptic_seg"]
    assert [s["category_id"] for s in info] == [3]
    assert (segments == 1).all()


@pytest.mark.parametrize("keys", [PER_PIXEL, PLUS])
def test_pixel_loss_is_the_mean_cross_entropy_of_the_labelled_pixels(build, make_inputs, keys):
    model = build(keys)
    inputs = with_labels(make_inputs())
    losses = model(inputs)
    layers = {"loss_sem_seg"} if keys is PER_PIXEL else {"loss_sem_seg", "loss_sem_seg_0", "loss_sem_seg_1"}
    assert set(losses) == layers
    logits = F.interpolate(model.predict_raw(inputs)["sem_seg"], scale_factor=4, mode="bilinear")
    total = count = 0
    for x, scores in zip(inputs, logits):
        known = x["sem_seg"] != 255
        pixels = scores[:, : known.shape[0], : known.shape[1]][:, known].t()
        total += F.cross_entropy(pixels, x["sem_seg"][known].long(), reduction="sum")
        count += known.sum()
    torch.testing.assert_close(losses["loss_sem_seg"], 2 * total / count)
    sum(losses.values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("keys", [PER_PIXEL, PLUS])
def test_pixel_results_have_the_wanted_size(build, make_inputs, keys):
    model, inputs = build(keys).eval(), make_inputs(sizes=((61, 90), (48, 64)))
    with torch.no_grad():
        results = model(inputs)
        again = model.postprocess(model.predict_raw(inputs), inputs)
    for x, result, same in zip(inputs, results, again):
        assert result["sem_seg"].shape == (5, x["height"], x["width"])
        torch.testing.assert_close(result["sem_seg"], same["sem_seg"])


def test_odd_sizes_and_unlabelled_images_train(build, make_inputs):
    """The logits cover a little more than the image; without any label the loss is zero, not NaN."""
    inputs = with_labels(make_inputs(sizes=((61, 90), (47, 33))))
    model = build(PER_PIXEL)
    assert model(inputs)["loss_sem_seg"].isfinite()
    for x in inputs:
        x["sem_seg"].fill_(255)
    loss = model(inputs)["loss_sem_seg"]
    loss.backward()
    assert loss == 0


def test_inputs_without_semantic_maps_are_refused(build, make_inputs):
    with pytest.raises(UserError, match="DATASET_MAPPER_NAME"):
        build(PER_PIXEL)(make_inputs())


@pytest.mark.parametrize(
    ("keys", "more", "message"),
    [
        (MASKFORMER, {"MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": "res9"}, "'res9': expected one of .*res5"),
        (MASKFORMER, {"MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": "multi_scale_pixel_decoder"}, "1 maps"),
        (MASKFORMER, {"MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "BasePixelDecoder"}, "gives the queries 0 maps"),
        (MASKFORMER, {"MODEL.SEM_SEG_HEAD.COMMON_STRIDE": 8}, "set COMMON_STRIDE to 4"),
        (MASKFORMER, {"MODEL.SEM_SEG_HEAD.IN_FEATURES": []}, "the backbone gives"),
        (MASKFORMER, {"MODEL.MASK_FORMER.DEC_LAYERS": 0}, "at least 1"),
        (MASKFORMER, {"MODEL.MASK_FORMER.NHEADS": 5}, "NHEADS, 5"),
        (MASKFORMER, {"MODEL.MASK_FORMER.MASK_LOSS": "focla"}, "cross_entropy, focal"),
        (MASKFORMER, {"MODEL.MASK_FORMER.TRAIN_NUM_POINTS": -1}, "0 for all pixels"),
        (MASKFORMER, {"MODEL.SEM_SEG_HEAD.NAME": "PerPixelBaselineHead"}, "SemanticSegmentor"),
        (PER_PIXEL, {"MODEL.SEM_SEG_HEAD.NAME": "MaskFormerHead"}, "PerPixelBaselineHead"),
        (PER_PIXEL, {"MODEL.MASK_FORMER.TEST.PANOPTIC_ON": True}, "semantic results alone"),
        (PER_PIXEL, {"MODEL.MASK_FORMER.TEST.SEMANTIC_ON": False}, "semantic results alone"),
        (PLUS, {"MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": 8}, "NUM_CLASSES, 5"),
    ],
)
def test_wrong_settings_are_answered_with_right_ones(build, keys, more, message):
    with pytest.raises(UserError, match=message):
        build(keys, more)
