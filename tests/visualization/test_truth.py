"""Ground truth and results in a form that can be drawn, and as thumbnails."""

import numpy as np
import pytest
import torch
from PIL import Image

from mask2former.structures import Instances, LabelSet, rle_decode, rle_encode
from mask2former.visualization import (
    Objects,
    PanopticMap,
    SemanticMap,
    clip_truth,
    draw,
    ground_truth,
    sample_truth,
    video_truth,
)
from mask2former.visualization.drawable import kind_of, result_of
from mask2former.visualization.thumbnails import thumbnail
from mask2former.visualization.truth import truth_fields

H, W = 40, 60
LABELS = LabelSet(("sky", "road", "car"), thing_ids=(2,), colors=((10, 20, 200), (120, 60, 120), (200, 30, 30)))


@pytest.fixture
def mask():
    mask = np.zeros((H, W), bool)
    mask[10:30, 20:50] = True
    return mask


def annotation(segmentation, category_id=2, iscrowd=0):
    return {"category_id": category_id, "iscrowd": iscrowd, "segmentation": segmentation}


@pytest.fixture
def record(tmp_path, mask):
    """One image with ground truth of every kind."""
    sem = np.where(mask, 2, 0).astype(np.uint8)
    ids = np.where(mask, 70_000, 300)
    Image.fromarray(sem).save(tmp_path / "sem.png")
    colors = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
    Image.fromarray(colors).save(tmp_path / "pan.png")
    return {
        "file_name": "image.jpg",
        "height": H,
        "width": W,
        "sem_seg_file_name": str(tmp_path / "sem.png"),
        "pan_seg_file_name": str(tmp_path / "pan.png"),
        "segments_info": [
            {"id": 300, "category_id": 0, "isthing": False, "iscrowd": 0},
            {"id": 70_000, "category_id": 2, "isthing": True, "iscrowd": 1},
        ],
        "annotations": [annotation(rle_encode(mask))],
    }


def test_every_kind_is_read(record, mask):
    panoptic, instances, semantic = (ground_truth(record, kind) for kind in ("panoptic", "instances", "semantic"))
    np.testing.assert_array_equal(panoptic.ids, np.where(mask, 70_000, 300))
    np.testing.assert_array_equal(rle_decode(instances.masks[0]), mask)
    np.testing.assert_array_equal(semantic.classes, np.where(mask, 2, 0))
    assert [kind_of(d) for d in (panoptic, instances, semantic)] == ["panoptic", "instances", "semantic"]


def test_the_wanted_kind_else_the_most_telling(record):
    assert kind_of(ground_truth(record)) == "panoptic"
    del record["pan_seg_file_name"]
    assert kind_of(ground_truth(record, "panoptic")) == "instances"
    assert kind_of(ground_truth({**record, "annotations": None})) == "semantic"
    assert ground_truth({"file_name": "image.jpg"}, "semantic") is None


def test_an_image_without_objects_has_ground_truth(record):
    empty = ground_truth({**record, "annotations": []}, "instances")
    assert (empty.size, len(empty.masks)) == ((H, W), 0)


def test_masks_in_all_forms_are_the_same(record, mask):
    polygon = [[20, 10, 50, 10, 50, 30, 20, 30]]
    counts = np.diff(np.flatnonzero(np.diff(np.r_[-1, mask.T.ravel().astype(int), -1])))  # column by column
    uncompressed = {"size": [H, W], "counts": [int(n) for n in counts]}
    forms = [polygon, rle_encode(mask), uncompressed, mask]
    truth = ground_truth({**record, "annotations": [annotation(form) for form in forms]}, "instances")
    for rle in truth.masks:
        np.testing.assert_array_equal(rle_decode(rle), mask)


def test_a_record_is_kept_without_its_image(record):
    kept = truth_fields({**record, "image": torch.zeros(3, H, W)})
    assert "image" not in kept
    for kind in ("panoptic", "instances", "semantic"):
        assert kind_of(ground_truth(kept, kind)) == kind


def test_targets_of_a_sample(mask):
    instances = Instances((H, W), gt_classes=torch.tensor([1, 2]), gt_masks=torch.from_numpy(np.stack([~mask, mask])))
    truth = sample_truth({"instances": instances})
    assert truth.classes == [1, 2]
    np.testing.assert_array_equal(rle_decode(truth.masks[1]), mask)


def test_results_by_kind(mask):
    scores = torch.stack([torch.from_numpy(~mask), torch.zeros(H, W), torch.from_numpy(mask)]).float()
    found = Instances(
        (H, W),
        pred_masks=torch.from_numpy(np.stack([mask, ~mask])),
        pred_classes=torch.tensor([2, 0]),
        scores=torch.tensor([0.9, 0.4]),
    )
    output = {"sem_seg": scores, "instances": found}
    np.testing.assert_array_equal(result_of(output, "semantic").classes, np.where(mask, 2, 0))
    assert result_of(output, "instances", 0.5).classes == [2]
    assert result_of(output, "instances", 0.3).classes == [2, 0]
    assert result_of(output, "panoptic") is None


def test_ground_truth_has_no_percentages_and_crowds_are_hatched(mask):
    image = np.full((H, W, 3), 100, np.uint8)
    plain, crowd = (
        draw(image, Objects((H, W), [rle_encode(mask)], [2], crowds=[iscrowd]), LabelSet(("", "", ""), (2,)))
        for iscrowd in (False, True)
    )
    inside = plain[12:28, 22:48] != 100
    assert inside.any(-1).all()
    shown = (crowd[12:28, 22:48] != 100).any(-1)
    assert 0.2 < shown.mean() < 0.9


def test_crowd_segments_are_hatched_and_named(mask):
    image = np.full((200, 300, 3), 100, np.uint8)
    ids = np.zeros((200, 300), int)
    ids[20:180, 30:270] = 4
    segment = {"id": 4, "category_id": 2, "isthing": True}
    one, many = (draw(image, PanopticMap(ids, [{**segment, "iscrowd": c}]), LABELS) for c in (0, 1))
    assert (one[25:60, 35:265] != 100).any(-1).all()
    assert 0.2 < (many[25:60, 35:265] != 100).any(-1).mean() < 0.6
    assert (one[90:110, 130:170] != many[90:110, 130:170]).any()


@pytest.mark.parametrize("kind", ["panoptic", "instances", "semantic"])
def test_thumbnails_show_the_same_classes(record, mask, kind):
    small = thumbnail(ground_truth(record, kind), LABELS, 30)
    assert small.rows.shape == (20, 30)
    categories = np.array([-1, *(s["category_id"] for s in small.segments)])[small.rows]
    background = -1 if kind == "instances" else 0
    np.testing.assert_array_equal(categories, np.where(mask[1::2, 1::2], 2, background))
    assert small.pixels_of(3)[2] == mask[1::2, 1::2].sum()
    assert not small.unlabelled.any()


def test_pixels_that_ought_to_have_a_label_are_dark(mask):
    image = np.full((20, 30, 3), 200, np.uint8)
    void = thumbnail(PanopticMap(mask.astype(int), [{"id": 1, "category_id": 2, "isthing": True}]), LABELS, 30)
    ignored = thumbnail(SemanticMap(np.where(mask, 2, 255)), LABELS, 30)
    objects = thumbnail(Objects((H, W), [rle_encode(mask)], [2]), LABELS, 30)
    for small, dark in ((void, True), (ignored, True), (objects, False)):
        assert (small.draw_truth(image, LABELS)[0, 0] < 100).all() == dark
        assert (small.draw(image, LABELS)[0, 0] == 200).all()


def test_small_objects_lie_on_top_in_a_thumbnail(mask):
    whole = np.ones((H, W), bool)
    for order in ([mask, whole], [whole, mask]):
        small = thumbnail(Objects((H, W), [rle_encode(m) for m in order], [0, 2]), LABELS, 60)
        on_top = 1 + next(i for i, m in enumerate(order) if m is mask)
        np.testing.assert_array_equal(small.rows == on_top, mask)


# ---------------------------------------------------------------- videos


def test_tracks_have_the_same_place_and_colour_in_every_frame(mask):
    """Two cars, the first of which is absent in frame 1."""
    low = np.roll(mask, 8, axis=0)
    first, second = ({**annotation(rle_encode(m)), "id": i} for i, m in ((3, mask & ~low), (8, low)))
    video = {"height": H, "width": W, "annotations": [[second, first], [second], []]}
    truths = video_truth(video, [0, 1, 2])
    assert [list(truth.ids) for truth in truths] == [[3, 8]] * 3
    assert [[int(rle_decode(rle).sum()) > 0 for rle in truth.masks] for truth in truths] == [
        [True, True],
        [False, True],
        [False, False],
    ]
    image = np.full((H, W, 3), 90, np.uint8)
    drawn = [draw(image, truth, LABELS) for truth in truths]
    place = (36, 22)  # inside the second one alone, away from its name
    assert low[place] and (drawn[0][place] == drawn[1][place]).all() and (drawn[0][place] != image[place]).any()
    np.testing.assert_array_equal(drawn[2], image)


def test_targets_of_a_clip(mask):
    frames = [
        Instances(
            (H, W),
            gt_classes=torch.tensor([2, 1]),
            gt_masks=torch.from_numpy(np.stack([mask, mask])),
            gt_ids=torch.tensor(ids),
        )
        for ids in ([5, -1], [-1, 7])
    ]
    truths = clip_truth({"instances": frames})
    assert [list(truth.ids) for truth in truths] == [[5, 7]] * 2 and list(truths[0].classes) == [2, 1]
