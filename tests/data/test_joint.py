"""Images beside videos in DATASETS.TRAIN: objects go by the names of their classes."""

from collections import Counter

import pytest

from mask2former.data import build_train_loader, check_datasets
from mask2former.data.datasets.build import checked_records, train_records
from mask2former.data.datasets.joint import class_map
from mask2former.structures import LabelSet
from mask2former.structures.labels import builtin_labels
from mask2former.utils.errors import UserError

# the published tables of joint training (VITA), category ids of COCO -> of YouTube-VIS
COCO_TO_YTVIS = {
    "ytvis_2019_train": "1:1 2:21 3:6 4:21 5:28 7:17 8:29 9:34 17:14 18:8 19:18 21:15 22:32 23:20 24:30 25:22 "
    "35:33 36:33 41:5 42:27 43:40",
    "ytvis_2021_train": "1:26 2:23 3:5 4:23 5:1 7:36 8:37 9:4 16:3 17:6 18:9 19:19 21:7 22:12 23:2 24:40 25:18 "
    "34:14 35:31 36:31 41:29 42:33 43:34",
}


@pytest.fixture
def joint_cfg(drawn_videos, shapes_root, video_cfg, edit_json):
    """A function of new names for the images' classes and KEY, VALUE, ...: videos, and images with these classes."""

    def build(names, *opts):
        path = shapes_root / "annotations" / "instances_train.json"

        def rename(content):
            for category in content["categories"]:
                category["name"] = names.get(category["name"], category["name"])

        edit_json(path, rename)
        split = {"IMAGES": "train/images", "ANNOTATIONS": f"annotations/{path.name}"}
        pictures = {"TYPE": "coco_instances", "ROOT": str(shapes_root), "SPLITS": {"train": split}}
        return video_cfg(
            drawn_videos, "DATASETS.CUSTOM", {"pics": pictures}, "DATASETS.TRAIN", ["vid_train", "pics_train"], *opts
        )

    return build


def _objects(records, names):
    """(image, class name) -> number of objects."""
    return Counter(
        (r["file_name"], names[a["category_id"]]) for r in records if "image_id" in r for a in r["annotations"]
    )


@pytest.mark.parametrize("videos", COCO_TO_YTVIS)
def test_coco_goes_to_youtube_vis_as_published(videos):
    coco, wanted = builtin_labels("coco_2017_train"), builtin_labels(videos)
    ids = wanted.dataset_ids or range(1, 41)
    found = [f"{coco.dataset_ids[own]}:{ids[theirs]}" for own, theirs in class_map(coco, wanted).items()]
    assert " ".join(found) == COCO_TO_YTVIS[videos]


def test_names_may_be_written_in_another_way():
    labels, wanted = LabelSet(("Tennis-racket", "mouse", "star")), LabelSet(("mouse", "tennis_racket"))
    assert class_map(labels, wanted) == {0: 1, 1: 0}  # an own set's mouse is a mouse


def test_objects_keep_their_class_and_others_are_left_out(joint_cfg, caplog):
    cfg = joint_cfg({"square": "Zebra", "star": "STAR", "ring": "an unknown"})
    with caplog.at_level("INFO"):
        records, labels = train_records(cfg)
    assert labels.names == ("circle", "square", "triangle", "star", "ring")
    given = checked_records(cfg, "pics_train", masks_needed=True, own_classes=True)
    names = ("circle", "Zebra", "triangle", "STAR", "an unknown")
    before, after = _objects(given, names), _objects(records, labels.names)
    kept = {(file, name.lower()): n for (file, name), n in before.items() if name in ("circle", "triangle", "STAR")}
    assert after == kept and 0 < len(kept) < len(before)
    assert "'pics_train': 3 of 5 classes are among those of 'vid_train': circle, triangle, STAR" in caplog.text
    assert f"{before.total() - after.total()} of {before.total()} objects" in caplog.text


def test_a_set_with_more_classes_than_the_model_is_trained_on(joint_cfg, shapes_root, edit_json):
    extra = [{"id": 90 + i, "name": f"more {i}"} for i in range(3)]
    edit_json(shapes_root / "annotations" / "instances_train.json", lambda content: content["categories"].extend(extra))
    cfg = joint_cfg({})
    check_datasets(cfg)
    kinds = Counter("image_id" in sample for _, batch in zip(range(8), build_train_loader(cfg)) for sample in batch)
    assert kinds[True] > 0 and kinds[False] > 0


def test_no_common_class_is_refused(joint_cfg):
    cfg = joint_cfg({name: f"{name} of mine" for name in ("circle", "square", "triangle", "star", "ring")})
    with pytest.raises(
        UserError, match="No class of the images of 'pics_train' .circle of mine.* Take 'pics_train' out"
    ):
        check_datasets(cfg)


def test_the_videos_come_first(joint_cfg):
    cfg = joint_cfg({"ring": "torus"}, "DATASETS.TRAIN", ["pics_train", "vid_train"])
    with pytest.raises(UserError, match="different labels: .*torus.* where the videos come first"):
        check_datasets(cfg)
