import pytest
import torch

from mask2former.data.targets import semantic_instances


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_masks_partition_the_labelled_pixels(dtype):
    sem_seg = torch.randint(0, 6, (13, 17), generator=torch.Generator().manual_seed(0)).to(dtype)
    sem_seg[3:5] = 255
    found = semantic_instances(sem_seg, ignore_label=255)
    assert found.gt_classes.dtype == torch.int64 and found.gt_masks.dtype == torch.bool
    assert found.image_size == (13, 17) and found.gt_masks.shape == (len(found), 13, 17)
    assert torch.equal(found.gt_masks.sum(0), (sem_seg != 255).long())
    for class_id, mask in zip(found.gt_classes, found.gt_masks, strict=True):
        assert mask.any() and torch.equal(mask, sem_seg == class_id)


def test_ids_above_a_byte_and_a_large_ignore_value():
    sem_seg = torch.tensor([[0, 846], [300, 65535]], dtype=torch.int32)
    assert semantic_instances(sem_seg, ignore_label=65535).gt_classes.tolist() == [0, 300, 846]


def test_an_image_without_labels_has_no_instances():
    found = semantic_instances(torch.full((4, 5), 255, dtype=torch.int32), ignore_label=255)
    assert len(found) == 0 and found.gt_masks.shape == (0, 4, 5)
