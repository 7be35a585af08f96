import pickle

import numpy as np
import pytest
import torch

from mask2former.structures import BitMasks, Instances


def make(n=4):
    return Instances((6, 8), gt_classes=torch.arange(n), gt_masks=torch.rand(n, 6, 8) > 0.5, names=list("abcd"[:n]))


def test_fields_are_indexed_together():
    instances = make()
    for item in (slice(1, 3), torch.tensor([1, 2]), torch.tensor([False, True, True, False])):
        part = instances[item]
        assert part.gt_classes.tolist() == [1, 2]
        assert part.names == ["b", "c"]
        assert torch.equal(part.gt_masks, instances.gt_masks[1:3])
    assert instances[-1].gt_classes.tolist() == instances[np.int64(3)].gt_classes.tolist() == [3]
    with pytest.raises(IndexError):
        instances[4]


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="'scores' has 3 rows, but 'gt_classes' has 4"):
        make().scores = torch.rand(3)


def test_a_single_field_may_change_length():
    instances = Instances((2, 2), gt_classes=torch.arange(3))
    instances.gt_classes = torch.arange(5)
    assert len(instances) == 5


def test_unknown_field_names_the_known_ones():
    with pytest.raises(AttributeError, match=r"no field 'scores'.*gt_classes"):
        _ = make().scores


def test_cat_is_the_inverse_of_splitting():
    instances = make()
    again = Instances.cat([instances[:1], instances[1:]])
    assert torch.equal(again.gt_masks, instances.gt_masks)
    assert again.names == instances.names


def test_moves_and_pickles():
    moved = make().to("cpu")
    again = pickle.loads(pickle.dumps(moved))  # as the loader's workers send them
    assert again.image_size == (6, 8)
    assert torch.equal(again.gt_classes, moved.gt_classes)


def test_bitmasks_as_a_field():
    instances = Instances((6, 8), gt_masks=BitMasks(torch.ones(3, 6, 8)))
    assert len(instances[:2].gt_masks) == 2
    assert len(Instances.cat([instances, instances])) == 6
