import pytest
import torch

from mask2former.modeling import LOSS, build_model
from mask2former.structures import Instances, LabelSet
from mask2former.utils.errors import UserError

LABELS = LabelSet(("cat", "dog", "car", "sky", "road"), thing_ids=(0, 1, 2))


@pytest.fixture
def model(tiny_cfg):
    torch.manual_seed(0)
    return build_model(tiny_cfg, LABELS)


def losses_of(model, inputs, seed=1):
    torch.manual_seed(seed)
    return model(inputs)


def test_loss_names_and_gradients(model, make_inputs):
    losses = losses_of(model, make_inputs())
    terms = {f"loss_{t}{s}" for t in ("ce", "mask", "dice") for s in ("", "_0", "_1", "_2")}
    assert set(losses) == terms
    sum(losses.values()).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None]
    assert without == []


def test_no_deep_supervision_keeps_the_final_layer(tiny_cfg, make_inputs):
    tiny_cfg.MODEL.MASK_FORMER.DEEP_SUPERVISION = False
    assert set(build_model(tiny_cfg)(make_inputs())) == {"loss_ce", "loss_mask", "loss_dice"}


def test_permuting_targets_keeps_the_loss(model, make_inputs):
    inputs = make_inputs()
    before = losses_of(model.double(), inputs)
    for x in inputs:
        x["instances"] = x["instances"][torch.arange(len(x["instances"])).flip(0)]
    after = losses_of(model, inputs)
    # points are drawn for matched queries in order, which the order of targets does not change
    for name in before:
        torch.testing.assert_close(after[name], before[name])


@pytest.mark.parametrize("counts", [(0, 0), (0, 2)])
def test_images_without_targets_stay_differentiable(model, counts, make_inputs):
    losses = losses_of(model, make_inputs(counts))
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    if sum(counts) == 0:
        assert losses["loss_mask"] == losses["loss_dice"] == 0


def test_more_targets_than_queries(model, make_inputs):
    assert all(v.isfinite() for v in losses_of(model, make_inputs((12, 1))).values())


def test_results_have_the_wanted_size(model, make_inputs):
    inputs = make_inputs()
    with torch.no_grad():
        results = model.eval()(inputs)
    for x, result in zip(inputs, results):
        size = (x["height"], x["width"])
        segments, info = result["panoptic_seg"]
        assert result["sem_seg"].shape == (5, *size)
        assert segments.shape == size
        assert set(segments.unique().tolist()) - {0} == {s["id"] for s in info}
        assert isinstance(result["instances"], Instances)
        assert result["instances"].image_size == size
        assert set(result["instances"].pred_classes.tolist()) <= {0, 1, 2}


def test_raw_and_postprocess_make_the_result(model, make_inputs):
    inputs = make_inputs()
    with torch.no_grad():
        raw = model.eval().predict_raw(inputs)
        assert raw["pred_logits"].shape == (2, 8, 6)
        assert raw["pred_masks"].shape == (2, 8, 16, 24)
        result, again = model(inputs), model.postprocess(raw, inputs)
    torch.testing.assert_close(again[1]["sem_seg"], result[1]["sem_seg"])


def test_an_image_does_not_see_its_neighbours_padding_size(model, make_inputs):
    """Alone or beside another image of the same padded size, the prediction is the same."""
    inputs = make_inputs(sizes=((64, 64), (64, 64)))
    with torch.no_grad():
        both = model.double().eval().predict_raw(inputs)["pred_masks"][1]
        alone = model.predict_raw(inputs[1:])["pred_masks"][0]
    torch.testing.assert_close(alone, both)


def test_uint8_and_float_images_agree(model, make_inputs):
    inputs = make_inputs()
    floats = [{**x, "image": x["image"].float()} for x in inputs]
    with torch.no_grad():
        a, b = (model.eval().predict_raw(x)["pred_masks"] for x in (inputs, floats))
    assert torch.equal(a, b)


def test_double_precision_reaches_the_end(model, make_inputs):
    with torch.no_grad():
        raw = model.double().eval().predict_raw(make_inputs())
    assert raw["pred_masks"].dtype == raw["pred_logits"].dtype == torch.float64


def test_bfloat16_autocast_trains(model, make_inputs):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = losses_of(model, make_inputs())
    assert all(v.dtype == torch.float32 and v.isfinite() for v in losses.values())
    sum(losses.values()).backward()


def test_a_loss_of_the_user_joins_by_name(tiny_cfg, make_inputs):
    LOSS.register(lambda logits, labels, normalizer: (logits.sigmoid() - labels).abs().mean(1).sum() / normalizer, "l1")
    tiny_cfg.MODEL.MASK_FORMER.EXTRA_LOSSES = [["l1", 3.0]]
    losses = build_model(tiny_cfg)(make_inputs())
    assert {"loss_l1", "loss_l1_0"} <= set(losses)


def test_clips_share_the_decoder(tiny_cfg):
    """A clip of T equal frames without temporal encoding predicts T equal masks, as its image does."""
    torch.manual_seed(0)
    head = build_model(tiny_cfg).double().eval().sem_seg_head
    g = torch.Generator().manual_seed(0)
    shapes = {"res2": 16, "res3": 8, "res4": 4, "res5": 2}
    channels = build_model(tiny_cfg).backbone.output_shape()
    maps = {n: torch.randn(1, channels[n].channels, s, s, generator=g, dtype=torch.float64) for n, s in shapes.items()}
    with torch.no_grad():
        image = head(maps, frames=1, every_layer=False)
        clip = head({n: m.expand(3, -1, -1, -1) for n, m in maps.items()}, frames=3, every_layer=False)
    assert clip.final_masks().shape == (1, 8, 3, 16, 16)
    torch.testing.assert_close(clip.final_masks(), image.final_masks().expand(-1, -1, 3, -1, -1))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("MODEL.META_ARCHITECTURE", "MaskFromer", "MaskFormer"),
        ("MODEL.BACKBONE.NAME", "build_resnet_backbon", "build_resnet_backbone"),
        ("MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", "MSDeformAttnPixelDecoderr", "MSDeformAttnPixelDecoder"),
        ("MODEL.SEM_SEG_HEAD.IN_FEATURES", ["res2", "res7"], "the backbone gives"),
        ("MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE", "res5", "multi_scale_pixel_decoder"),
        ("MODEL.MASK_FORMER.DEC_LAYERS", 1, "at least 2"),
        ("MODEL.MASK_FORMER.NHEADS", 5, "NHEADS, 5"),
        ("MODEL.MASK_FORMER.NO_OBJECT_WEIGHT", 0.0, "more than 0"),
        ("MODEL.MASK_FORMER.OVERSAMPLE_RATIO", 0.5, "at least 1"),
        ("MODEL.MASK_FORMER.EXTRA_LOSSES", ["dice"], r"\[name, weight\] pairs"),
        ("MODEL.MASK_FORMER.EXTRA_LOSSES", [["dice", 0.0]], "other than ce, mask and dice"),
        ("MODEL.SEM_SEG_HEAD.IN_FEATURES", ["res3", "res4", "res5"], "has stride 8, but COMMON_STRIDE is 4"),
        ("MODEL.SEM_SEG_HEAD.COMMON_STRIDE", 2, "set COMMON_STRIDE to 4"),
        ("MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_N_HEADS", 5, "N_HEADS, 5"),
        ("MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS", 0, "at least 1"),
        ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 2, r"1 of the data set's 3 thing classes do not fit .*, 2: 2\. Set it"),
        ("MODEL.PIXEL_STD", [1.0], "one per image channel"),
    ],
)
def test_wrong_names_are_answered_with_right_ones(tiny_cfg, key, value, message):
    tiny_cfg.merge_from_list([key, value])
    with pytest.raises(UserError, match=message):
        build_model(tiny_cfg, LABELS)


def test_a_projection_that_no_layer_would_train_is_refused(tiny_cfg):
    tiny_cfg.merge_from_list(["MODEL.MASK_FORMER.ENFORCE_INPUT_PROJ", True, "MODEL.MASK_FORMER.DEC_LAYERS", 3])
    with pytest.raises(UserError, match="at least 4"):
        build_model(tiny_cfg)


def test_class_weights_are_given_by_name(tiny_cfg):
    tiny_cfg.merge_from_list(["MODEL.MASK_FORMER.CLASS_WEIGHTS", "{sky: 0.5, dog: 3}"])
    weights = build_model(tiny_cfg, LABELS).criterion.empty_weight
    assert weights.tolist() == pytest.approx([1, 3, 1, 0.5, 1, 0.1])


def test_unknown_names_in_class_weights_are_refused(tiny_cfg):
    tiny_cfg.merge_from_list(["MODEL.MASK_FORMER.CLASS_WEIGHTS", "{sly: 0.5}"])
    with pytest.raises(UserError, match=r"'sly'.*'sky'"):
        build_model(tiny_cfg, LABELS)
    with pytest.raises(UserError, match="unknown"):
        build_model(tiny_cfg)
