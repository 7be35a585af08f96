import logging

import numpy as np
import pytest
from PIL import Image

from mask2former.data.build import build_train_loader
from mask2former.data.selection import check_fit, image_classes, without_empty
from mask2former.utils.errors import UserError

OBJECT, CROWD = {"category_id": 4, "iscrowd": 0}, {"category_id": 6, "iscrowd": 1}


def _records(*annotations):
    return [{"file_name": f"{i}.jpg", "annotations": list(a)} for i, a in enumerate(annotations)]


def test_images_without_objects_are_left_out_and_counted(caplog):
    records = _records([OBJECT], [], [CROWD], [CROWD, OBJECT])
    with caplog.at_level(logging.INFO):
        assert [r["file_name"] for r in without_empty(records)] == ["0.jpg", "3.jpg"]
    assert "2 of 4 training images" in caplog.text
    with pytest.raises(UserError, match="None of the 2 images .*FILTER_EMPTY_ANNOTATIONS False"):
        without_empty(records[1:3])


def test_a_mapper_that_does_not_fit_is_refused_with_those_that_do():
    sources = {"semantic": "sem_seg_file_name", "panoptic": "pan_seg_file_name", "instance": "annotations"}
    records = [{"file_name": "a.jpg", "annotations": [], "pan_seg_file_name": "a.png"}] * 2
    check_fit("panoptic", sources, records)
    check_fit("a user's own", sources, records)
    with pytest.raises(UserError, match="'semantic' reads 'sem_seg_file_name'.*a.jpg.*that fit: panoptic, instance"):
        check_fit("semantic", sources, records)
    with pytest.raises(UserError, match="No mapper fits all"):
        check_fit("semantic", sources, [*records, {"file_name": "b.jpg", "sem_seg_file_name": "b.png"}])


def test_classes_of_objects_and_segments():
    assert image_classes(_records([OBJECT, OBJECT], [], [CROWD, OBJECT]), "annotations", 255) == [{4}, set(), {4, 6}]
    records = [{"pan_seg_file_name": "a.png", "segments_info": [{"category_id": c} for c in (3, 3, 9)]}]
    assert image_classes(records, "pan_seg_file_name", 255) == [{3, 9}]


def test_semantic_images_with_rare_classes_are_repeated(tiny_cfg, tiny_root, write_pair, caplog):
    write_pair(tiny_root / "train", "rare", seed=3)
    for path in (tiny_root / "train" / "masks").iterdir():
        mask = np.array(Image.open(path))
        mask[mask == 2] = 2 if path.stem == "rare" else 255
        Image.fromarray(mask).save(path)
    opts = ("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler", "DATALOADER.REPEAT_THRESHOLD", 0.5)
    with caplog.at_level(logging.INFO):
        loader = build_train_loader(tiny_cfg(*opts))
    assert (
        "reading 8 masks once" in caplog.text and "1 of 8 training images are repeated, up to 2.0 times" in caplog.text
    )
    names = [sample["image_id"] for _ in range(9) for sample in next(loader)]  # two epochs of nine
    assert names.count("rare") == 4 and all(names.count(f"train{i}") == 2 for i in range(7))


def test_repeated_training_resumes_exactly(tiny_cfg):
    opts = ("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler", "DATALOADER.REPEAT_THRESHOLD", 1.5)
    whole = build_train_loader(tiny_cfg(*opts))
    names = [sample["image_id"] for _ in range(20) for sample in next(whole)]
    first = build_train_loader(tiny_cfg(*opts))
    for _ in range(7):
        next(first)
    second = build_train_loader(tiny_cfg(*opts))
    second.load_state_dict(first.state_dict())
    assert [sample["image_id"] for _ in range(13) for sample in next(second)] == names[14:]
