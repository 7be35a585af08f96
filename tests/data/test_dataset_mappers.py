"""The published mapper classes, and what users build on them."""

import importlib.util

import numpy as np
import pytest
import torch
from PIL import Image

import mask2former
from mask2former.compat import install_aliases
from mask2former.compat import transforms as T
from mask2former.compat.importer import remove_aliases
from mask2former.config import get_cfg
from mask2former.config.configurable import configurable
from mask2former.data import MAPPERS
from mask2former.data.build import build_train_mapper
from mask2former.data.catalog import MetadataCatalog
from mask2former.data.reading import read_image, read_mask
from mask2former.structures import LabelSet
from mask2former.utils.errors import UserError

LABELS = LabelSet(("background", "class1"), ignore_label=250)


@pytest.fixture
def record(tmp_path) -> dict:
    """An image of 700x900 pixels, bright where its mask has class 1 and its panoptic map segment 5."""
    mask = np.zeros((700, 900), np.uint8)
    mask[250:450, 350:600] = 1
    Image.fromarray(np.stack([mask * 255] * 3, 2)).save(tmp_path / "image.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    ids = np.where(mask, 5, 0).astype(np.uint8)
    Image.fromarray(np.stack([ids, 0 * ids, 0 * ids], 2)).save(tmp_path / "panoptic.png")
    ring = [350, 250, 600, 250, 600, 450, 350, 450]
    return {
        "file_name": str(tmp_path / "image.png"),
        "sem_seg_file_name": str(tmp_path / "mask.png"),
        "pan_seg_file_name": str(tmp_path / "panoptic.png"),
        "segments_info": [{"id": 5, "category_id": 1, "isthing": True, "iscrowd": 0, "area": 50000}],
        "annotations": [
            {"id": 1, "category_id": 1, "iscrowd": 0, "segmentation": [ring], "bbox": [350, 250, 250, 200]}
        ],
        "image_id": 0,
        "height": 700,
        "width": 900,
    }


@pytest.fixture
def cfg():
    cfg = get_cfg()
    cfg.INPUT.FORMAT = "RGB"
    MetadataCatalog.get("for_mapper_test").set(stuff_classes=list(LABELS.names), ignore_label=LABELS.ignore_label)
    cfg.DATASETS.TRAIN = ["for_mapper_test"]
    yield cfg
    MetadataCatalog.remove("for_mapper_test")


def aligned(sample: dict) -> bool:
    """Whether the object's mask is where the image is bright."""
    bright = sample["image"][0] > 140
    (mask,) = sample["instances"].gt_masks[sample["instances"].gt_classes == 1]
    return bool(bright.any()) and float((bright & mask).sum() / (bright | mask).sum()) > 0.97


def test_the_tutorials_mapper_gives_its_crop(shared_dir, cfg, record):
    path = shared_dir / "reference" / "tutorial" / "your_dataset_mapper.py"
    assert install_aliases()
    try:
        spec = importlib.util.spec_from_file_location("tutorial_mapper", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        remove_aliases()
    for divisibility in (-1, 512):  # 512: that of the recipe the tutorial builds on
        cfg.INPUT.SIZE_DIVISIBILITY = divisibility
        mapper = module.YourDatasetMapper(cfg, True)
        for seed in range(3):
            torch.manual_seed(seed)
            sample = mapper(record)
            assert sample["image"].shape == (3, 640, 640) and sample["image"].dtype == torch.uint8
            assert sample["sem_seg"].shape == sample["instances"].gt_masks.shape[1:] == (640, 640)
            assert sample["instances"].gt_classes.tolist() == [0, 1] and aligned(sample)
            assert set(sample["sem_seg"].unique().tolist()) == {0, 1, LABELS.ignore_label}  # turned corners
            assert (sample["height"], sample["width"]) == (700, 900)


PUBLISHED = {
    "MaskFormerSemanticDatasetMapper": "mask_former_semantic",
    "MaskFormerPanopticDatasetMapper": "mask_former_panoptic",
    "MaskFormerInstanceDatasetMapper": "mask_former_instance",
    "COCOInstanceNewBaselineDatasetMapper": "coco_instance_lsj",
    "COCOPanopticNewBaselineDatasetMapper": "coco_panoptic_lsj",
    "DETRPanopticDatasetMapper": "detr_panoptic",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_classes_do_what_their_names_in_recipes_do(name, cfg, record):
    mapper = getattr(mask2former, name)(cfg)
    torch.manual_seed(1)
    theirs = mapper(record)
    torch.manual_seed(1)
    ours = MAPPERS[PUBLISHED[name]](cfg, LABELS)(record)
    assert torch.equal(theirs["image"], ours["image"])
    assert torch.equal(theirs["instances"].gt_masks, ours["instances"].gt_masks)


@pytest.mark.parametrize("name", PUBLISHED)
def test_replaced_augmentations_move_every_kind_of_annotation(name, cfg, record):
    cfg.INPUT.SIZE_DIVISIBILITY = 512
    mapper = getattr(mask2former, name)(cfg)
    mapper.tfm_gens = [T.Resize((350, 450)), T.RandomRotation(30.0, expand=False), T.RandomFlip(1.0)]
    assert mapper.augmentations is mapper.tfm_gens and len(mapper.augmentations) == 3
    sample = mapper(record)
    padded = PUBLISHED[name].startswith("mask_former")
    assert sample["image"].shape[1:] == ((512, 512) if padded else (350, 450))
    assert padded is (sample["image"][:, -1, -1].tolist() == [128] * 3)
    sample["image"] = torch.where(sample["image"] == 128, 0, sample["image"])
    assert aligned(sample)


def test_a_users_class_can_be_named_in_a_recipe(cfg, record):
    class Mine(mask2former.MaskFormerSemanticDatasetMapper):
        def __init__(self, cfg, is_train=True):
            super().__init__(cfg, is_train)
            self.augmentations = T.AugmentationList([T.FixedSizeCrop((800, 1000))])

    MAPPERS["mine"] = Mine
    try:
        cfg.INPUT.DATASET_MAPPER_NAME = "mine"
        cfg.DATASETS.TRAIN = []  # the labels come with the call
        sample = build_train_mapper(cfg, LABELS)(record)
    finally:
        del MAPPERS["mine"]
    assert sample["image"].shape == (3, 800, 1000) and aligned(sample)
    assert (sample["sem_seg"][700:] == LABELS.ignore_label).all()


class Copied(mask2former.MaskFormerSemanticDatasetMapper):
    """Does by itself, as the published code does, what the class it builds on does."""

    def __call__(self, record):
        ids = read_mask(record["sem_seg_file_name"]).astype("double")
        image, drawn = T.apply_transform_gens(self.tfm_gens, T.AugInput(read_image(record["file_name"]), sem_seg=ids))
        corners = drawn.apply_coords(np.array([[350.0, 250], [600, 450]]))
        image, ids = torch.from_numpy(image.image).permute(2, 0, 1), torch.from_numpy(image.sem_seg).long()
        return {"image": image, "sem_seg": ids, "corners": corners}


def test_a_copy_of_the_published_code_has_what_it_uses(cfg, record):
    cfg.INPUT.SIZE_DIVISIBILITY, cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.COLOR_AUG_SSD = 1024, [350], True
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.SIZE, cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = True, [300, 400], 0.95
    cfg.INPUT.CROP.TYPE = "absolute"
    mapper = Copied(cfg)
    assert (mapper.img_format, mapper.ignore_label, mapper.size_divisibility) == ("RGB", LABELS.ignore_label, 1024)
    for seed in range(4):  # torchvision's transforms draw the same numbers for image, ids and points
        torch.manual_seed(seed)
        sample = mapper(record)
        torch.manual_seed(seed)
        expected = mask2former.MaskFormerSemanticDatasetMapper(cfg)(record)
        assert torch.equal(sample["image"], expected["image"]) and torch.equal(sample["sem_seg"], expected["sem_seg"])
        rows, columns = (sample["sem_seg"] == 1).nonzero(as_tuple=True)
        near, far = sample["corners"].min(0), sample["corners"].max(0)
        assert abs(columns.min() - max(near[0], 0)) <= 1 and abs(rows.max() + 1 - min(far[1], 300)) <= 1


@pytest.mark.parametrize("name", PUBLISHED)
def test_arguments_may_be_changed_where_the_recipe_is_read(name, cfg, record):
    class Mine(getattr(mask2former, name)):
        @configurable
        def __init__(self, is_train=True, *, edge, **published):
            super().__init__(is_train, **published)
            self.tfm_gens.append(T.Resize((edge, edge)))

        @classmethod
        def from_config(cls, cfg, is_train=True):
            found = super().from_config(cfg, is_train)
            (found.get("augmentations") or found["tfm_gens"]).insert(0, T.RandomFlip(1.0))
            return {**found, "edge": 448}

    sample = Mine(cfg, LABELS)(record)
    assert sample["image"].shape == (3, 448, 448) and sample["instances"].gt_masks.shape[1:] == (448, 448)
    mapper = Mine(cfg)
    mapper.tfm_gens.clear()
    assert mapper(record)["image"].shape == (3, 700, 900)


def test_mistakes_are_told(cfg):
    with pytest.raises(UserError, match="training samples"):
        mask2former.MaskFormerSemanticDatasetMapper(cfg, False)
    cfg.DATASETS.TRAIN = []
    with pytest.raises(UserError, match="DATASETS.TRAIN is empty"):
        mask2former.MaskFormerSemanticDatasetMapper(cfg)
