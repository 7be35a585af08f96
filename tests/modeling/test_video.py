"""Models of clips: one frame equals the image path, targets, results, and videos of different lengths and sizes."""

import pytest
import torch

from mask2former.checkpoint import load_weights
from mask2former.modeling import build_model
from mask2former.modeling.targets import clip_targets
from mask2former.structures import CompactMasks, Instances
from mask2former.utils.errors import UserError

# T frames, N objects

INSTANCES_ALONE = [
    *("MODEL.MASK_FORMER.TEST.SEMANTIC_ON", False),
    *("MODEL.MASK_FORMER.TEST.PANOPTIC_ON", False),
]
VIDEO = [
    *INSTANCES_ALONE,
    *("MODEL.META_ARCHITECTURE", "VideoMaskFormer"),
    *("MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME", "VideoMultiScaleMaskedTransformerDecoder"),
]


@pytest.fixture
def video_cfg(tiny_cfg):
    tiny_cfg.merge_from_list(VIDEO)
    return tiny_cfg


def clip(frames=2, size=(64, 96), count=3, seed=0, ids=None):
    """A training input with `count` random objects; `ids` [T][N] says where they are."""
    g = torch.Generator().manual_seed(seed)
    instances = []
    for t in range(frames):
        masks = torch.rand(count, *size, generator=g) < 0.3
        row = torch.arange(count) if ids is None else torch.tensor(ids[t])
        masks[row < 0] = False
        instances.append(Instances(size, gt_classes=torch.arange(count) % 5, gt_masks=masks, gt_ids=row))
    images = [torch.randint(0, 256, (3, *size), generator=g, dtype=torch.uint8) for _ in range(frames)]
    return {"image": images, "instances": instances, "height": size[0], "width": size[1], "length": frames}


def twins(cfg, temporal=True):
    """An image model and a video model with its weights, in float64."""
    image = cfg.clone()
    image.merge_from_list([*INSTANCES_ALONE])
    video = cfg.clone()
    video.merge_from_list(VIDEO if temporal else VIDEO[:-2])
    torch.manual_seed(0)
    image_model, video_model = build_model(image).double(), build_model(video).double()
    missing = video_model.load_state_dict(image_model.state_dict())  # strict: the names are the same
    assert not missing.missing_keys
    return image_model, video_model


@pytest.mark.parametrize("temporal", [False, True])
def test_one_frame_equals_the_image_path(tiny_cfg, make_inputs, temporal):
    # The 3-D encoding of a single frame is the 2-D one plus the same vector at every pixel. It adds to all scores of a
    # query alike, which softmax does not see, and values have no encoding: so the two decoders agree up to rounding.
    image_model, video_model = twins(tiny_cfg, temporal)
    inputs = make_inputs()
    clips = []
    for x in inputs:
        x["instances"].gt_ids = torch.arange(len(x["instances"]))
        clips.append({**x, "image": [x["image"]], "instances": [x["instances"]]})
    torch.manual_seed(1)
    expected = image_model(inputs)
    torch.manual_seed(1)
    losses = video_model(clips)
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-9, atol=1e-9)
    image_model.eval(), video_model.eval()
    with torch.no_grad():
        raw, clip_raw = image_model.predict_raw(inputs), video_model.predict_raw(clips)
    torch.testing.assert_close(clip_raw["pred_logits"], raw["pred_logits"], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(clip_raw["pred_masks"], raw["pred_masks"][:, :, None], rtol=1e-9, atol=1e-9)


def test_image_weights_start_a_video_model_of_other_classes(tiny_cfg, tmp_path):
    torch.save({"model": build_model(tiny_cfg).state_dict()}, tmp_path / "image.pth")
    tiny_cfg.merge_from_list([*VIDEO, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 4])
    report = load_weights(build_model(tiny_cfg), str(tmp_path / "image.pth"))
    assert not report.missing
    assert not report.unexpected
    assert {tensor.name.split(".")[-2] for tensor in report.reshaped} == {"class_embed", "criterion"}


def test_result_has_the_published_form_and_the_asked_number_of_tracks(video_cfg):
    video_cfg.TEST.DETECTIONS_PER_VIDEO = 7
    model = build_model(video_cfg).eval()
    with torch.no_grad():
        (result,) = model([{**clip(frames=3), "height": 50, "width": 70}])
    assert result["image_size"] == (50, 70)
    assert [len(result[key]) for key in ("pred_scores", "pred_labels", "pred_masks")] == [7, 7, 7]
    assert all(isinstance(score, float) for score in result["pred_scores"])
    assert all(isinstance(label, int) for label in result["pred_labels"])
    assert {(mask.dtype, tuple(mask.shape)) for mask in result["pred_masks"]} == {(torch.bool, (3, 50, 70))}
    assert result["pred_scores"] == sorted(result["pred_scores"], reverse=True)


def test_videos_of_other_sizes_and_lengths_do_not_change_a_result(video_cfg):
    model = build_model(video_cfg).double().eval()
    first, second = clip(frames=3, size=(64, 96)), clip(frames=2, size=(48, 64), seed=1)
    with torch.no_grad():
        alone, together = model([second])[0], model([first, second])[1]
    assert alone["pred_scores"] == together["pred_scores"]
    assert all(torch.equal(a, b) for a, b in zip(alone["pred_masks"], together["pred_masks"]))


@pytest.mark.parametrize("window", [0, 3])
def test_results_have_the_size_of_the_frames_unless_another_is_asked_for(video_cfg, window):
    video_cfg.merge_from_list(["TEST.WINDOW_SIZE", window])
    model = build_model(video_cfg).eval()
    images = clip(frames=5)["image"]
    with torch.no_grad():
        own, asked = model([{"image": images}, {"image": images, "height": 30, "width": 40}])
    for result, size in ((own, (64, 96)), (asked, (30, 40))):
        assert result["image_size"] == size
        assert {tuple(mask[4].shape) for mask in result["pred_masks"]} == {size}


@pytest.mark.parametrize("length", [0, 9])
def test_a_video_without_frames_is_refused(video_cfg, length):
    video_cfg.merge_from_list(["TEST.WINDOW_SIZE", 3])
    with pytest.raises(UserError, match="The video cats has no frames"):
        build_model(video_cfg).eval()([{"image": iter([]), "length": length, "video_id": "cats"}])


def test_clips_of_other_sizes_and_without_objects_train(video_cfg):
    model = build_model(video_cfg)
    for batch in ([clip(), clip(size=(48, 64), count=0)], [clip(count=0)]):
        losses = model(batch)
        assert all(value.isfinite() for value in losses.values())
        sum(losses.values()).backward()
    assert len(losses) == 3 * video_cfg.MODEL.MASK_FORMER.DEC_LAYERS
    assert losses["loss_mask"] == 0


def test_targets_leave_out_objects_that_no_frame_has():
    sample = clip(frames=2, count=3, ids=[[0, -1, -1], [0, -1, 2]])
    sample["instances"][0].gt_classes = torch.tensor([4, 5, 5])  # a placeholder where the object is absent
    sample["instances"][1].gt_classes = torch.tensor([4, 5, 1])
    targets = clip_targets([sample["instances"]], (64, 96), torch.device("cpu"))
    assert targets.counts == [2]
    assert targets.classes.tolist() == [4, 1]
    assert targets.places.shape == (2, 2, 6)
    starts = targets.places[..., 0]
    masks = torch.stack([targets.pixels[s : s + 64 * 96].view(64, 96) for s in starts.flatten()]).view(2, 2, 64, 96)
    truth = torch.stack([frame.gt_masks for frame in sample["instances"]], 1)
    assert torch.equal(masks, truth[[0, 2]])
    assert not masks[1, 0].any()


def test_compact_targets_give_the_losses_of_boolean_ones(video_cfg):
    model = build_model(video_cfg)
    batch = [clip(ids=[[0, 1, -1], [0, -1, -1]]), clip(size=(48, 64), seed=2)]
    losses = []
    for compact in (False, True):
        for frame in (frame for x in batch for frame in x["instances"] if compact):
            crops = list(frame.gt_masks)
            frame.gt_masks = CompactMasks.from_crops(crops, [(0, 0)] * len(crops), frame.image_size)
        torch.manual_seed(3)
        losses.append({name: value.item() for name, value in model(batch).items()})
    assert losses[0] == losses[1]


def test_order_of_objects_and_ids_do_not_matter(video_cfg):
    model = build_model(video_cfg).double()
    sample, losses = clip(), []
    for order in ([0, 1, 2], [2, 0, 1]):
        torch.manual_seed(4)
        instances = [frame[torch.tensor(order)] for frame in sample["instances"]]
        losses.append(model([{**sample, "instances": instances}]))
    for name, value in losses[0].items():
        torch.testing.assert_close(losses[1][name], value, rtol=1e-9, atol=1e-9)


def test_frames_must_hold_the_same_objects():
    sample = clip()
    sample["instances"][1] = sample["instances"][1][:2]
    with pytest.raises(ValueError, match=r"frames of a clip have \[3, 2\] instances"):
        clip_targets([sample["instances"]], (64, 96), torch.device("cpu"))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("TEST.WINDOW_OVERLAP", 8, "WINDOW_SIZE is 8 and TEST.WINDOW_OVERLAP 8"),
        ("TEST.WINDOW_SIZE", -1, "WINDOW_SIZE is -1"),
        ("TEST.DETECTIONS_PER_VIDEO", 0, "DETECTIONS_PER_VIDEO is 0"),
        ("MODEL.MASK_FORMER.TEST.PANOPTIC_ON", True, "tracks of instances alone"),
    ],
)
def test_settings_without_meaning_are_refused(video_cfg, key, value, said):
    video_cfg.merge_from_list(["TEST.WINDOW_SIZE", 8, key, value])
    with pytest.raises(UserError, match=said):
        build_model(video_cfg)
