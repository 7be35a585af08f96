"""The published mapper classes of clips, and what users build on them."""

import numpy as np
import pytest
import torch
from PIL import Image

from mask2former.compat import transforms as T
from mask2former.data import MAPPERS
from mask2former.data.dataset_mappers.ytvis_dataset_mapper import CocoClipDatasetMapper, YTVISDatasetMapper
from mask2former.structures import LabelSet, rle_encode

LABELS = LabelSet(tuple("abcde"))
SIZE = (40, 60)


@pytest.fixture
def record(tmp_path):
    """Four frames with a bright box that moves to the right."""
    names, annotations = [], []
    for t in range(4):
        mask = np.zeros(SIZE, bool)
        mask[8:28, 5 + 6 * t : 25 + 6 * t] = True
        names.append(str(tmp_path / f"{t}.png"))
        Image.fromarray(np.repeat(mask[:, :, None] * np.uint8(255), 3, 2)).save(names[-1])
        annotations.append([{"id": 7, "category_id": 1, "iscrowd": 0, "segmentation": rle_encode(mask)}])
    return {"video_id": 1, "file_names": names, "annotations": annotations, "height": SIZE[0], "width": SIZE[1]}


@pytest.fixture
def cfg(video_cfg, drawn_videos):
    return video_cfg(drawn_videos, "INPUT.SAMPLING_FRAME_NUM", 3, "INPUT.RANDOM_FLIP", "flip_by_clip")


@pytest.mark.parametrize("kind", [YTVISDatasetMapper, CocoClipDatasetMapper])
def test_published_classes_do_what_their_name_in_recipes_does(kind, cfg, record):
    if kind is CocoClipDatasetMapper:
        record = {"file_name": record["file_names"][0], "annotations": record["annotations"][0]}
    for seed in range(3):
        torch.manual_seed(seed)
        theirs = kind(cfg)(record)
        torch.manual_seed(seed)
        ours = MAPPERS["ytvis"](cfg, LABELS)(record)
        assert len(theirs["image"]) == 3 and all(map(torch.equal, theirs["image"], ours["image"]))
        for a, b in zip(theirs["instances"], ours["instances"], strict=True):
            assert torch.equal(a.gt_masks, b.gt_masks) and torch.equal(a.gt_ids, b.gt_ids)


def test_augmentations_of_detectron2_s_kind_change_all_frames_alike(cfg, record):
    class Mirrored(T.Transform):
        def apply_image(self, img):
            return img[:, ::-1]

    class Mirror(T.Augmentation):
        def get_transform(self, image):
            assert image.shape == (*SIZE, 3)
            return Mirrored()

    mapper = YTVISDatasetMapper(is_train=True, augmentations=[Mirror(), T.Resize((80, 120))], sampling_frame_num=4)
    sample = mapper(record)
    for t, (image, instances) in enumerate(zip(sample["image"], sample["instances"], strict=True)):
        bright = image[0] > 127
        assert image.shape == (3, 80, 120)
        assert (bright & instances.gt_masks[0]).sum() / (bright | instances.gt_masks[0]).sum() > 0.97
        columns = bright.any(0).nonzero()
        assert abs(int(columns.max()) + 1 - (120 - 2 * (5 + 6 * t))) <= 1
