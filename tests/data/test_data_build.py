from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from mask2former.config import get_cfg
from mask2former.data import (
    DatasetCatalog,
    MetadataCatalog,
    build_test_loader,
    build_test_transform,
    build_train_loader,
    labels_of,
    read_image,
    register_custom,
)
from mask2former.data.build import MAPPERS, build_detr_transform
from mask2former.utils.errors import UserError

CLASSES = ["left", "right", "box"]  # of conftest.py


def test_training_batches_are_what_the_model_takes(tiny_cfg):
    batch = next(build_train_loader(tiny_cfg()))
    assert len(batch) == 2
    for sample in batch:
        assert sample["image"].shape == (3, 20, 20) and sample["image"].dtype == torch.uint8
        assert sample["sem_seg"].shape == (20, 20) and not sample["sem_seg"].is_floating_point()
        assert type(sample["image"]) is torch.Tensor and type(sample["sem_seg"]) is torch.Tensor
        assert sample["image"].is_contiguous()
        assert (sample["height"], sample["width"]) == (24, 32)
        assert sample["file_name"].endswith(f"{sample['image_id']}.png")
        targets = sample["instances"]
        assert targets.image_size == (20, 20)
        assert torch.equal(targets.gt_masks.sum(0), (sample["sem_seg"] != 255).long())


def test_image_and_mask_stay_together_through_the_whole_recipe(tiny_cfg):
    opts = ("INPUT.COLOR_AUG_SSD", False, "INPUT.MIN_SIZE_TRAIN", [24])  # keeps the ids in the red channel readable
    for format, red in (("RGB", 0), ("BGR", 2)):
        loader = build_train_loader(tiny_cfg("INPUT.FORMAT", format, *opts))
        for batch in islice(loader, 8):
            for sample in batch:
                inside = sample["sem_seg"] != 255
                assert torch.equal(sample["image"][red][inside].int(), sample["sem_seg"][inside] * 40)
                assert (sample["image"][:, ~inside] == 128).all()


def test_resume_and_workers_do_not_change_the_samples(tiny_cfg):
    def images(loader, count):
        return [sample["image"] for batch in islice(loader, count) for sample in batch]

    whole = images(build_train_loader(tiny_cfg()), 8)
    first = build_train_loader(tiny_cfg())
    images(first, 3)
    second = build_train_loader(tiny_cfg("DATALOADER.NUM_WORKERS", 2))
    second.load_state_dict(first.state_dict())
    assert all(map(torch.equal, whole[6:], images(second, 5)))


def test_accumulated_passes_hold_the_samples_of_the_whole_batch(tiny_cfg):
    whole = [s["image"] for s in next(build_train_loader(tiny_cfg()))]
    loader = build_train_loader(tiny_cfg("SOLVER.ACCUMULATE_STEPS", 2))
    assert all(map(torch.equal, whole, [next(loader)[0]["image"] for _ in range(2)]))
    with pytest.raises(UserError, match=r"IMS_PER_BATCH 2 .*ACCUMULATE_STEPS.*multiple of 3"):
        build_train_loader(tiny_cfg("SOLVER.ACCUMULATE_STEPS", 3))


def test_test_inputs_are_resized_and_remember_their_size(tiny_cfg):
    cfg = tiny_cfg()
    loader = build_test_loader(cfg, "tiny_valid")
    batches = list(loader)
    assert len(loader) == len(batches) == 5
    assert [b[0]["image_id"] for b in batches] == [f"valid{i}" for i in range(5)]
    for (sample,) in batches:
        assert sample["image"].shape == (3, 12, 16) and sample["image"].dtype == torch.uint8
        assert (sample["height"], sample["width"]) == (24, 32) and "sem_seg_file_name" in sample
        prepared = build_test_transform(cfg)(read_image(sample["file_name"]))
        assert torch.equal(prepared, sample["image"])


def test_several_training_sets_are_read_as_one(tiny_cfg):
    loader = build_train_loader(tiny_cfg("DATASETS.TRAIN", ["tiny_train", "tiny_valid"]))
    seen = {sample["image_id"] for batch in islice(loader, 6) for sample in batch}
    assert seen == {f"train{i}" for i in range(7)} | {f"valid{i}" for i in range(5)}


def test_training_sets_with_different_labels_are_refused(tiny_cfg):
    cfg = tiny_cfg("DATASETS.TRAIN", ["tiny_train", "tiny_valid"])
    MetadataCatalog.get("tiny_valid").set(stuff_classes=["left", "right", "circle"])
    with pytest.raises(UserError, match="'tiny_train' and 'tiny_valid'.*different labels.*box.*circle"):
        build_train_loader(cfg)


def test_wide_and_high_images_do_not_share_a_batch(write_pair, tiny_cfg, tiny_root):
    for i in range(5):
        write_pair(tiny_root / "train", f"high{i}", height=32, width=24, seed=i)
    opts = ("INPUT.CROP.ENABLED", False, "INPUT.SIZE_DIVISIBILITY", -1)
    grouped = list(islice(build_train_loader(tiny_cfg(*opts)), 12))
    assert all(len({s["width"] > s["height"] for s in batch}) == 1 for batch in grouped)
    assert {s["width"] for batch in grouped for s in batch} == {24, 32}
    mixed = islice(build_train_loader(tiny_cfg(*opts, "DATALOADER.ASPECT_RATIO_GROUPING", False)), 12)
    assert any(len({s["width"] for s in batch}) == 2 for batch in mixed)


def test_a_data_set_from_python_needs_only_file_names(tiny_cfg, tiny_root):
    """Registered as a user's module does it, without sizes and ids in its records."""
    files = sorted((tiny_root / "train" / "images").iterdir())
    DatasetCatalog.register(
        "mine",
        lambda: [{"file_name": str(f), "sem_seg_file_name": str(f.parent.parent / "masks" / f.name)} for f in files],
    )
    MetadataCatalog.get("mine").set(stuff_classes=CLASSES, ignore_label=255, evaluator_type="sem_seg")
    sample = next(build_train_loader(tiny_cfg("DATASETS.TRAIN", ["mine"])))[0]
    assert (sample["height"], sample["width"]) == (24, 32) and sample["image_id"] == sample["file_name"]


def test_more_than_256_classes(tiny_cfg, tmp_path):
    names, root = [f"class {i}" for i in range(1000)], tmp_path / "wide"
    for kind in ("images", "masks"):
        (root / "train" / kind).mkdir(parents=True)
    ids = np.arange(30 * 40).reshape(30, 40).astype(np.uint16) % 1000
    ids[:2] = 65535
    Image.fromarray(ids).save(root / "train" / "masks" / "a.png")
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(root / "train" / "images" / "a.jpg")
    custom = {"wide": {"ROOT": str(root), "CLASSES": names, "IGNORE_LABEL": 65535}}
    opts = ("INPUT.CROP.ENABLED", False, "INPUT.MIN_SIZE_TRAIN", [30], "INPUT.SIZE_DIVISIBILITY", 40)
    cfg = tiny_cfg("DATASETS.CUSTOM", custom, "DATASETS.TRAIN", ["wide_train"], *opts)
    cfg.merge_from_list(["MODEL.SEM_SEG_HEAD.NUM_CLASSES", 1000])
    sample = next(build_train_loader(cfg))[0]
    assert sample["instances"].gt_classes.tolist() == list(range(1000))
    assert (sample["sem_seg"][30:] == 65535).all()


def test_unstated_ignore_value_is_no_class(tmp_path):
    """With 255 classes the ids end at 254; with 256, 255 is one of them."""
    (tmp_path / "train").mkdir()
    for count, ignored in ((255, 255), (256, 65535)):
        names = [f"class {i}" for i in range(count)]
        register_custom("many", {"ROOT": str(tmp_path), "CLASSES": names})
        MetadataCatalog.get(f"many_{count}").set(stuff_classes=names)
        for name in ("many_train", f"many_{count}"):
            assert labels_of(MetadataCatalog.get(name)).ignore_label == ignored


def test_unsupported_settings_say_what_is_available(tiny_cfg):
    for key, value, message in (
        ("INPUT.DATASET_MAPPER_NAME", "mask_former_panoptics", "Did you mean 'mask_former_panoptic'.*Available: "),
        ("INPUT.DATASET_MAPPER_NAME", "coco_panoptic_lsj", "Mappers that fit: mask_former_semantic."),
        ("DATALOADER.SAMPLER_TRAIN", "RandomSubsetTrainingSampler", "Available: TrainingSampler, RepeatFactor"),
        ("DATALOADER.NUM_WORKERS", -1, "DATALOADER.NUM_WORKERS is -1"),
        ("INPUT.FORMAT", "L", "INPUT.FORMAT is 'L'"),
        ("INPUT.SIZE_DIVISIBILITY", 18, r"INPUT.CROP.SIZE \[16, 20\] does not fit INPUT.SIZE_DIVISIBILITY 18"),
        ("DATASETS.TRAIN", [], "DATASETS.TRAIN is empty"),
        ("DATASETS.TRAIN", ["tiny_trian"], "Did you mean 'tiny_train'"),
    ):
        with pytest.raises(UserError, match=message):
            build_train_loader(tiny_cfg(key, value))


def test_a_users_mapper_is_found_by_its_name(tiny_cfg, monkeypatch):
    monkeypatch.setitem(MAPPERS, "mine", lambda cfg, labels: lambda record: {"names": labels.names})
    sample = next(build_train_loader(tiny_cfg("INPUT.DATASET_MAPPER_NAME", "mine")))[0]
    assert sample == {"names": tuple(CLASSES)}


def test_camvid_loads_with_the_published_augmentation(tiny_cfg, shared_dir):
    names = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]
    custom = {"camvid": {"ROOT": str(shared_dir / "data" / "camvid"), "CLASSES": names}}
    cfg = tiny_cfg("DATASETS.CUSTOM", custom, "DATASETS.TRAIN", ["camvid_train"], "DATASETS.TEST", ["camvid_valid"])
    cfg.merge_from_list(["MODEL.SEM_SEG_HEAD.NUM_CLASSES", 11, "INPUT.CROP.SINGLE_CATEGORY_MAX_AREA", 0.75])
    cfg.merge_from_list(["INPUT.MIN_SIZE_TRAIN", [180, 360], "INPUT.CROP.SIZE", [128, 128]])
    cfg.merge_from_list(["INPUT.MAX_SIZE_TRAIN", 2048, "INPUT.SIZE_DIVISIBILITY", 128])
    loader = build_train_loader(cfg)
    assert len(loader.records) == 367 and len(build_test_loader(cfg, "camvid_valid")) == 101
    for batch in islice(loader, 3):
        for sample in batch:
            assert sample["image"].shape == (3, 128, 128) and len(sample["instances"]) > 1
    assert labels_of(MetadataCatalog.get("camvid_train")).names == tuple(names)


def test_an_unused_entry_may_lack_its_files(tiny_cfg, tiny_root, tmp_path):
    """Recipes inherit entries they do not use."""
    cfg = tiny_cfg("DATASETS.CUSTOM.elsewhere", {"ROOT": str(tmp_path / "elsewhere")})
    with pytest.raises(UserError, match="elsewhere of data set 'elsewhere' does not exist"):
        labels_of(MetadataCatalog.get("elsewhere_train"))
    files = {"IMAGES": "train/images", "ANNOTATIONS": "gone.json"}
    tiny_cfg("DATASETS.CUSTOM.partly", {"TYPE": "coco_instances", "ROOT": str(tiny_root), "SPLITS": {"train": files}})
    with pytest.raises(UserError, match="gone.json does not exist. Put it there, or correct DATASETS.CUSTOM.partly"):
        DatasetCatalog.get("partly_train")
    with pytest.raises(UserError, match="elsewhere of data set 'elsewhere' does not exist"):
        tiny_cfg("DATASETS.CUSTOM", cfg.DATASETS.CUSTOM, "DATASETS.TEST", ["elsewhere_valid"])


@pytest.fixture
def shapes_cfg(tiny_cfg, shapes_root):
    """Function of TYPE, mapper, KEY, VALUE, ... that returns a recipe over the drawn shapes in a COCO format."""

    def build(kind, mapper, *opts):
        files = {"IMAGES": "train/images", "ANNOTATIONS": f"annotations/{kind.removeprefix('coco_')}_train.json"}
        if kind == "coco_panoptic":
            files["PANOPTIC"] = "panoptic_train"
        cfg = tiny_cfg(
            "DATASETS.CUSTOM", {"drawn": {"TYPE": kind, "ROOT": str(shapes_root), "SPLITS": {"train": files}}}
        )
        classes = {"coco_instances": 5, "coco_panoptic": 8}[kind]
        jitter = ("INPUT.IMAGE_SIZE", 20, "INPUT.MIN_SCALE", 0.8, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", classes)
        names = ("DATASETS.TRAIN", ["drawn_train"], "INPUT.DATASET_MAPPER_NAME", mapper)
        cfg.merge_from_list([*names, *jitter, *opts])
        return cfg

    return build


@pytest.mark.parametrize(
    ("kind", "mapper"),
    [
        ("coco_instances", "coco_instance_lsj"),
        ("coco_instances", "mask_former_instance"),
        ("coco_panoptic", "coco_panoptic_lsj"),
        ("coco_panoptic", "mask_former_panoptic"),
    ],
)
def test_declared_objects_and_segments_are_loaded(shapes_cfg, kind, mapper):
    for batch in islice(build_train_loader(shapes_cfg(kind, mapper)), 4):
        for sample in batch:
            assert sample["image"].shape == (3, 20, 20) and sample["instances"].gt_masks.shape[1:] == (20, 20)
            if kind == "coco_panoptic":  # the drawings have no unlabelled pixels
                assert sample["instances"].gt_masks.sum(0).max() == 1


def test_images_without_objects_are_left_out_unless_wanted(shapes_cfg, shapes_root, edit_json):
    def strip(content):
        first, second = content["images"][:2]
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] != first["id"]]
        for annotation in content["annotations"]:
            annotation["iscrowd"] = int(annotation["image_id"] == second["id"])

    edit_json(shapes_root / "annotations" / "instances_train.json", strip)
    assert len(build_train_loader(shapes_cfg("coco_instances", "coco_instance_lsj")).records) == 2
    opts = ("DATALOADER.FILTER_EMPTY_ANNOTATIONS", False)
    loader = build_train_loader(shapes_cfg("coco_instances", "coco_instance_lsj", *opts))
    assert len(loader.records) == 4
    counts = {sample["image_id"]: len(sample["instances"]) for batch in islice(loader, 2) for sample in batch}
    assert len(counts) == 4 and sum(count == 0 for count in counts.values()) >= 2


def test_half_of_detrs_images_are_cropped_before_they_are_resized():
    """A crop of 384 to 600 pixels from an image of 400 to 600, then the recipe's size: the shape tells which."""
    cfg = get_cfg()
    cfg.merge_from_list(["INPUT.MIN_SIZE_TRAIN", [800], "INPUT.MAX_SIZE_TRAIN", 1333, "INPUT.CROP.ENABLED", True])
    cfg.merge_from_list(["INPUT.CROP.TYPE", "absolute_range", "INPUT.CROP.SIZE", [384, 600]])
    torch.manual_seed(0)
    image = tv_tensors.Image(torch.zeros(3, 30, 60, dtype=torch.uint8))
    shapes = [tuple(build_detr_transform(cfg)(image).shape[1:]) for _ in range(40)]
    whole = shapes.count((667, 1333))  # 1 to 2, limited by the longer side
    assert 10 <= whole <= 30
    assert all(max(h, w) < 1333 * 0.95 and min(h, w) == 800 for h, w in shapes if (h, w) != (667, 1333))
    cfg.INPUT.CROP.ENABLED = False
    assert {build_detr_transform(cfg)(image).shape for _ in range(10)} == {(3, 667, 1333)}
