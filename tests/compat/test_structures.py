"""Boxes, polygons, config and mapper helpers of detectron2, as users' mappers call them."""

import numpy as np
import pytest
import torch

from mask2former.compat import detection_utils as utils
from mask2former.compat import transforms as T
from mask2former.compat.structures import Boxes, BoxMode, PolygonMasks, polygons_to_bitmask
from mask2former.config import get_cfg
from mask2former.config.configurable import configurable
from mask2former.structures import rle_encode
from mask2former.utils.errors import UserError


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
def test_boxes_change_their_mode_and_keep_their_container(kind):
    box = kind([1.0, 2.0, 3.0, 4.0])
    corners = BoxMode.convert(box, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
    assert type(corners) is type(box) and list(corners) == [1, 2, 4, 6] and list(box) == [1, 2, 3, 4]
    assert list(BoxMode.convert(corners, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)) == [1, 2, 3, 4]
    with pytest.raises(NotImplementedError, match="XYXY_REL"):
        BoxMode.convert(box, BoxMode.XYXY_ABS, BoxMode.XYXY_REL)


def test_boxes():
    boxes = Boxes([[-5, 0, 10, 10], [3, 3, 3, 9]])
    assert boxes.area().tolist() == [150, 0] and boxes.nonempty().tolist() == [True, False]
    boxes.clip((8, 6))
    assert boxes.tensor.tolist() == [[0, 0, 6, 8], [3, 3, 3, 8]]
    assert len(Boxes.cat([boxes, boxes[0]])) == 3 and len(boxes[torch.tensor([False, True])]) == 1
    assert len(Boxes([])) == 0


def test_polygons():
    masks = PolygonMasks([[[0, 0, 4, 0, 4, 3]], [], [[1, 1, 2, 1, 2, 2], [5, 5, 7, 5, 7, 9]]])
    assert masks.get_bounding_boxes().tensor.tolist() == [[0, 0, 4, 3], [0, 0, 0, 0], [1, 1, 7, 9]]
    assert masks.nonempty().tolist() == [True, False, True]
    assert len(masks[torch.tensor([True, False, True])]) == 2 and len(masks[2].polygons[0]) == 2
    assert masks.area().tolist() == [6, 0, 4.5] and masks.to("cpu") is masks
    drawn = polygons_to_bitmask([[2, 1, 6, 1, 6, 4, 2, 4]], 5, 8)
    assert drawn.dtype == bool and drawn[1:4, 2:6].all() and drawn.sum() == 12


def test_the_usual_mapper_of_detectron2_moves_annotations():
    image = np.zeros((40, 60, 3), np.uint8)
    inside = np.zeros((40, 60), bool)
    inside[10:20, 30:50] = True
    ring = [30, 10, 50, 10, 50, 20, 30, 20]
    common = {"bbox": [30, 10, 20, 10], "bbox_mode": 1, "category_id": 2}
    image, drawn = T.apply_transform_gens([T.Resize((80, 120)), T.RandomFlip(1.0)], image)
    annos = [{**common, "segmentation": [ring]}, {**common, "segmentation": rle_encode(inside)}]
    annos = [utils.transform_instance_annotations(anno, drawn, image.shape[:2]) for anno in annos]
    assert all(anno["bbox"].tolist() == [20, 20, 60, 40] for anno in annos)
    bitmasks = utils.annotations_to_instances(annos, image.shape[:2], "bitmask")
    assert bitmasks.gt_classes.tolist() == [2, 2] and bitmasks.gt_masks.tensor.shape == (2, 80, 120)
    assert torch.equal(bitmasks.gt_masks.tensor[0], bitmasks.gt_masks.tensor[1])
    polygons = utils.annotations_to_instances(annos[:1], image.shape[:2])
    assert polygons.gt_masks.get_bounding_boxes().tensor.tolist() == polygons.gt_boxes.tensor.tolist()
    gone = utils.transform_instance_annotations({**common, "segmentation": [ring]}, T.TransformList([]), (8, 8))
    kept = utils.annotations_to_instances([*annos, gone], image.shape[:2], "bitmask")
    assert len(utils.filter_empty_instances(kept)) == 2
    assert len(utils.annotations_to_instances([], (8, 8))) == 0


def test_reading_as_users_mappers_do(two_folders):
    folder = two_folders / "your_dataset_name" / "valid"
    assert utils.read_image(folder / "images" / "0.jpg", format="BGR").shape == (40, 50, 3)
    assert utils.read_image(folder / "images" / "0.jpg").shape == (40, 50, 3)
    mask = utils.read_image(folder / "masks" / "0.png")
    assert mask.shape == (40, 50) and set(np.unique(mask)) == {0, 1}
    assert (utils.read_image(folder / "masks" / "0.png", "L") == mask[:, :, None]).all()
    record = {"file_name": "a", "height": 41}
    with pytest.raises(UserError, match="height 40"):
        utils.check_image_size(record, mask)
    utils.check_image_size(other := {}, mask)
    assert other == {"height": 40, "width": 50}


def test_configurable_classes_and_functions():
    class Thing:
        @configurable
        def __init__(self, size, *, name="x", extra=0):
            self.values = (size, name, extra)

        @classmethod
        def from_config(cls, cfg, scale=1):
            return {"size": cfg.SEED * scale, "name": cls.__name__}

    class Other(Thing):
        pass

    cfg = get_cfg()
    assert Thing(5, name="y").values == (5, "y", 0)
    assert Thing(cfg, 3, extra=2).values == (-3, "Thing", 2)
    assert Other(cfg=cfg, scale=2).values == (-2, "Other", 0)

    @configurable(from_config=lambda cfg: {"a": cfg.SEED})
    def function(a, b=1):
        return a, b

    assert function(cfg, b=4) == (-1, 4) and function(7) == (7, 1)
