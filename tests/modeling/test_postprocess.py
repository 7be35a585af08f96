import pytest
import torch

from mask2former.modeling.postprocess import Geometry, instances, panoptic, semantic

K = 3
SAME = Geometry(padded=(8, 8), image=(8, 8), output=(8, 8))


def logits_for(classes, confidence=20.0):
    """Class logits [Q,K+1] certain of the given classes (K: no object)."""
    return confidence * torch.nn.functional.one_hot(torch.tensor(classes), K + 1).float()


def box_logits(*boxes, size=(8, 8)):
    """Mask logits [Q,h,w]: 10 inside (x0, y0, x1, y1), -10 outside."""
    out = torch.full((len(boxes), *size), -10.0)
    for mask, (x0, y0, x1, y1) in zip(out, boxes):
        mask[y0:y1, x0:x1] = 10
    return out


def run_panoptic(classes, *boxes, things=(0, 1), score_threshold=0.5, overlap_threshold=0.8):
    return panoptic(
        logits_for(classes),
        box_logits(*boxes),
        SAME,
        thing_ids=frozenset(things),
        score_threshold=score_threshold,
        overlap_threshold=overlap_threshold,
    )


def test_stuff_of_one_class_merges_and_things_do_not():
    segments, info = run_panoptic([2, 2, 0, 0], (0, 0, 2, 2), (6, 6, 8, 8), (3, 0, 5, 2), (0, 5, 2, 8))
    assert [(s["category_id"], s["isthing"]) for s in info] == [(2, False), (0, True), (0, True)]
    assert segments.dtype == torch.int32
    assert segments[0, 0] == segments[7, 7] == info[0]["id"]
    assert segments[0, 3] != segments[6, 0]
    assert segments[4, 4] == 0


@pytest.mark.parametrize(("overlap_threshold", "kept"), [(0.2, [0, 1]), (0.3, [0])])
def test_a_mostly_hidden_query_is_dropped(overlap_threshold, kept):
    """The tie goes to the first query, so a quarter of the second's mask is left to it."""
    boxes = (0, 0, 8, 6), (0, 0, 8, 8)
    _, info = run_panoptic([0, 1], *boxes, overlap_threshold=overlap_threshold)
    assert [s["category_id"] for s in info] == kept


def test_a_fully_hidden_query_is_dropped():
    _, info = run_panoptic([0, 1], (0, 0, 8, 8), (0, 0, 4, 4), overlap_threshold=0.0)
    assert [s["category_id"] for s in info] == [0]


def test_no_object_and_low_scores_give_nothing():
    segments, info = run_panoptic([K, K], (0, 0, 4, 4), (4, 4, 8, 8))
    assert info == []
    assert (segments == 0).all()
    assert run_panoptic([0], (0, 0, 4, 4), score_threshold=1.0)[1] == []


def test_semantic_picks_the_class_of_the_mask():
    scores = semantic(logits_for([1, 2]), box_logits((0, 0, 4, 8), (4, 0, 8, 8)), SAME, resize_first=True)
    assert scores.shape == (K, 8, 8)
    assert (scores.argmax(0)[:, :4] == 1).all()
    assert (scores.argmax(0)[:, 4:] == 2).all()


@pytest.mark.parametrize("resize_first", [True, False])
def test_padding_never_reaches_the_result(resize_first):
    geometry = Geometry(padded=(16, 16), image=(12, 8), output=(24, 20))
    masks = box_logits((0, 0, 2, 3), size=(4, 4))
    inside = semantic(logits_for([1]), masks, geometry, resize_first)
    assert inside.shape == (K, 24, 20)
    masks[:, :, 3:] = 10  # beyond the image's 2 columns and their interpolation
    torch.testing.assert_close(semantic(logits_for([1]), masks, geometry, resize_first), inside)


def test_instances_have_boxes_scores_and_masks():
    found = instances(logits_for([1, K]), box_logits((1, 2, 5, 7), (0, 0, 8, 8)), SAME, top_k=1, classes=None)
    assert found.pred_classes.tolist() == [1]
    assert found.pred_boxes.tolist() == [[1, 2, 5, 7]]
    assert found.pred_masks.dtype == torch.bool
    assert found.pred_masks.sum() == 20
    torch.testing.assert_close(found.scores, torch.tensor([1.0]), atol=1e-3, rtol=0)


def test_only_wanted_classes_and_none_at_all():
    masks = box_logits((1, 2, 5, 7), (0, 0, 8, 8))
    only = instances(logits_for([1, 2]), masks, SAME, top_k=6, classes=frozenset({2}))
    assert set(only.pred_classes.tolist()) == {2}
    nothing = instances(logits_for([1, 2]), masks, SAME, top_k=6, classes=frozenset())
    assert len(nothing) == 0
    assert nothing.pred_masks.shape == (0, 8, 8)


def test_an_empty_mask_scores_nothing():
    found = instances(logits_for([1]), torch.full((1, 8, 8), -10.0), SAME, top_k=1, classes=None)
    assert found.scores.tolist() == [0]
    assert found.pred_boxes.tolist() == [[0, 0, 0, 0]]
