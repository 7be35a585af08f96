"""Videos in YouTube-VIS's form: what records say, and what is told of files that are wrong."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from mask2former.config import get_cfg
from mask2former.data import (
    DatasetCatalog,
    MetadataCatalog,
    check_datasets,
    labels_of,
    load_ytvis_json,
    register_datasets,
    register_ytvis_instances,
)
from mask2former.data.datasets.build import checked_records, infer_num_classes
from mask2former.structures import coco_rle, rle_decode
from mask2former.utils.errors import UserError


def _tracks(records):
    """(video id, track id) -> masks [T,H,W]."""
    found = {}
    for record in records:
        size = record["height"], record["width"]
        for t, objects in enumerate(record["annotations"]):
            for annotation in objects:
                masks = found.setdefault((record["video_id"], annotation["id"]), np.zeros((record["length"], *size)))
                masks[t] = rle_decode(coco_rle(annotation["segmentation"], size))
    return found


def test_records_say_what_was_drawn(moving_shapes, drawn_videos):
    records = load_ytvis_json(drawn_videos / "train.json", drawn_videos / "train" / "JPEGImages")
    assert [record["video_id"] for record in records] == [1, 2, 3]
    tracks = [masks for _, masks in sorted(_tracks(records).items())]
    for record in records:
        frames, objects, kinds = moving_shapes.draw_video(0, 0, record["video_id"] - 1, 64)
        assert record["length"] == len(record["file_names"]) == len(record["annotations"]) == len(frames)
        assert (record["height"], record["width"]) == frames.shape[1:3] == (48, 64)
        for number in range(1, len(kinds) + 1):
            masks = objects == number
            masks[masks.sum((1, 2)) < moving_shapes.SEEN] = False
            if masks.any():
                np.testing.assert_array_equal(masks, tracks.pop(0))
    assert tracks == []


def test_forms_of_masks_are_the_same(drawn_videos, videos_root, edit_json):
    """Uncompressed RLE for compressed, measures left out, null or empty lists for absent objects."""

    def change(content):
        for track in content["annotations"]:
            for t, rle in enumerate(track["segmentations"]):
                if rle is None:
                    track["segmentations"][t] = [] if t % 2 else None
                    continue
                column = coco_mask.decode(rle).reshape(-1, order="F")
                starts = np.flatnonzero(np.diff(np.r_[0, column, 2]))  # 2 closes the last run
                counts = np.diff(np.r_[0, starts]).tolist()
                track["segmentations"][t] = {"size": rle["size"], "counts": counts}
            del track["bboxes"], track["areas"]

    before = load_ytvis_json(drawn_videos / "train.json", drawn_videos / "train" / "JPEGImages")
    edit_json(videos_root / "train.json", change)
    after = load_ytvis_json(videos_root / "train.json", videos_root / "train" / "JPEGImages")
    for key, masks in _tracks(before).items():
        np.testing.assert_array_equal(masks, _tracks(after)[key])
    for old, new in zip(before, after, strict=True):
        for old_objects, new_objects in zip(old["annotations"], new["annotations"], strict=True):
            assert [(o["bbox"], o["area"]) for o in old_objects] == [(o["bbox"], o["area"]) for o in new_objects]


def test_polygons_and_empty_tracks(videos_root, edit_json, caplog):
    def change(content):
        length = content["videos"][0]["length"]
        track = {"video_id": 1, "category_id": 1, "bboxes": [None] * length}
        square = [[10, 10, 20, 10, 20, 20, 10, 20]]
        content["annotations"] = [
            {**track, "id": 5, "segmentations": [square] + [None] * (length - 1)},
            {**track, "id": 6, "segmentations": [None] * length},
        ]

    edit_json(videos_root / "valid.json", change)
    records = load_ytvis_json(videos_root / "valid.json", videos_root / "valid" / "JPEGImages")
    assert [len(objects) for objects in records[0]["annotations"][:2]] == [1, 0]
    assert records[0]["annotations"][0][0]["area"] == 100 and not any(records[1]["annotations"])
    assert "1 tracks have no mask in any frame" in caplog.text


def test_a_file_without_truth_can_be_evaluated_but_not_trained(video_cfg, videos_root, edit_json):
    for split in ("train", "valid"):
        edit_json(videos_root / f"{split}.json", lambda content: content.update(annotations=None))
    cfg = video_cfg(videos_root)
    assert "annotations" not in checked_records(cfg, "vid_valid", masks_needed=False)[0]
    check_datasets(cfg, training=False)
    with pytest.raises(UserError, match="Record 0 of data set 'vid_train' has no 'annotations'"):
        check_datasets(cfg)


def test_classes_come_from_the_file(video_cfg, drawn_videos):
    cfg = video_cfg(drawn_videos)
    check_datasets(cfg)
    metadata = MetadataCatalog.get("vid_train")
    assert metadata.evaluator_type == "ytvis" and metadata.json_file == str(drawn_videos / "train.json")
    assert labels_of(metadata).names == ("circle", "square", "triangle", "star", "ring")
    assert metadata.thing_dataset_id_to_contiguous_id == {1: 0, 2: 1, 3: 2, 5: 3, 7: 4}
    register_ytvis_instances("mine", {}, drawn_videos / "train.json", drawn_videos / "train" / "JPEGImages")
    assert DatasetCatalog.get("mine") == checked_records(cfg, "vid_train", True)


def test_davis(shared_dir):
    root = shared_dir / "data" / "davis_ytvis"
    splits = {"all": {"IMAGES": "JPEGImages", "ANNOTATIONS": "instances.json"}}
    cfg = get_cfg()
    custom = {"davis": {"TYPE": "ytvis", "ROOT": str(root), "SPLITS": splits}}
    names = ["davis_all"]
    cfg.merge_from_list(["DATASETS.CUSTOM", custom, "DATASETS.TRAIN", names, "DATASETS.TEST", names])
    register_datasets(cfg)
    infer_num_classes(cfg)
    check_datasets(cfg)
    records = checked_records(cfg, "davis_all", True)
    assert [record["length"] for record in records] == [40, 60]
    assert [
        labels_of(MetadataCatalog.get("davis_all")).names[r["annotations"][0][0]["category_id"]] for r in records
    ] == [
        "car",
        "dog",
    ]


# ---------------------------------------------------------------- mistakes


def _refused(cfg) -> str:
    with pytest.raises(UserError) as caught:
        check_datasets(cfg)
    return str(caught.value)


def _other_size(content):
    rles = content["annotations"][0]["segmentations"]
    first = next(t for t, rle in enumerate(rles) if rle)
    rles[first] = {"size": [48, 48], "counts": [48 * 48]}


WRONG = {
    "track too short": (
        lambda content: content["annotations"][0]["segmentations"].pop(),
        r"annotation 1 of video 1 has \d+ segmentations for \d+ frames. Export the track again",
    ),
    "boxes too long": (
        lambda content: content["annotations"][0]["bboxes"].append(None),
        r"annotation 1 of video 1 has \d+ bboxes for",
    ),
    "no list": (
        lambda content: content["annotations"][0].pop("segmentations"),
        "annotation 1 of video 1 has the segmentations 'None'; expected a list",
    ),
    "length": (
        lambda content: content["videos"][0].update(length=3),
        r"video 1 has the length 3, but \d+ file_names",
    ),
    "category": (
        lambda content: content["annotations"][0].update(category_id=4),
        "has the category_id 4; the categories are 1; 2; 3; 5; 7",
    ),
    "video": (
        lambda content: content["annotations"][0].update(video_id=9),
        "annotation 1 has the video_id 9, which none of the 3 videos has",
    ),
    "frame": (
        lambda content: content["videos"][0]["file_names"].__setitem__(2, "000/99.jpg"),
        r"1 of \d+ frames of .*train.json do not exist: .*000/99.jpg",
    ),
    "size": (_other_size, r"annotation 1 of image .*: the RLE has the size \[48, 48\] .* its image \[48, 64\]"),
    "no frames": (
        lambda content: content["videos"][0].update(file_names=[]),
        r"video 1 has the file_names \[\]; expected the path of each frame",
    ),
    "ids": (
        lambda content: content["annotations"][0].update(id=2),
        "several annotation entries of one id: 2",
    ),
    "text as id": (
        lambda content: content["annotations"][0].update(id="a"),
        "annotation 0 .* has the id 'a'; expected a whole number",
    ),
    "stated size": (
        lambda content: content["videos"][0].update(height=-1),
        "video 1 has the height -1 and width 64",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_refused_before_training(case, video_cfg, videos_root, edit_json):
    change, message = WRONG[case]
    edit_json(videos_root / "train.json", change)
    with pytest.raises(UserError, match=message):
        check_datasets(video_cfg(videos_root))


def test_a_coco_file_is_no_video_file(video_cfg, videos_root):
    (videos_root / "train.json").write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    with pytest.raises(UserError, match="is not a YouTube-VIS file: expected .* videos, categories"):
        video_cfg(videos_root)


@pytest.mark.parametrize("stated", [True, False])
def test_frames_of_changing_size(stated, video_cfg, videos_root, edit_json):
    Image.new("RGB", (30, 20)).save(videos_root / "train" / "JPEGImages" / "001" / "00007.jpg")
    if not stated:
        edit_json(videos_root / "train.json", lambda content: [v.pop("height") for v in content["videos"]])
    message = _refused(video_cfg(videos_root))
    assert "001/00007.jpg is 20x30 pixels (height x width, upright), but its record says 48x64" in message


def test_a_broken_frame(video_cfg, videos_root):
    (videos_root / "valid" / "JPEGImages" / "000" / "00003.jpg").write_bytes(b"no picture")
    assert "000/00003.jpg cannot be read" in _refused(video_cfg(videos_root))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": [[]]}, "has annotations for 1 frames, but 2 file_names"),
        ({"length": 3}, "has the length 3, but 2 file_names"),
        ({"file_names": []}, r"has the file_names \[\]"),
        ({"annotations": [[{"category_id": 0}], []]}, "has the id None; expected the whole number of its track"),
    ],
)
def test_records_of_a_users_function(change, message, video_cfg, drawn_videos):
    names = sorted(str(path) for path in (drawn_videos / "train" / "JPEGImages" / "000").iterdir())[:2]
    cfg = video_cfg(drawn_videos)
    DatasetCatalog.register("own", lambda: [{"file_names": names, "annotations": [[], []], **change}])
    MetadataCatalog.get("own").set(thing_classes=list("abcde"), evaluator_type="ytvis")
    cfg.DATASETS.TRAIN = ["own"]
    with pytest.raises(UserError, match=f"Record 0 of data set 'own'.*{message}"):
        check_datasets(cfg)


def test_records_of_a_users_function_are_completed(video_cfg, drawn_videos):
    names = sorted(str(path) for path in (drawn_videos / "train" / "JPEGImages" / "000").iterdir())[:2]
    cfg = video_cfg(drawn_videos)
    box = {"id": 3, "category_id": 4, "segmentation": [[1, 1, 5, 1, 5, 5]]}
    DatasetCatalog.register("own", lambda: [{"file_names": names, "annotations": [[box], []]}])
    MetadataCatalog.get("own").set(thing_classes=list("abcde"), evaluator_type="ytvis")
    (record,) = checked_records(cfg, "own", masks_needed=True)
    assert (record["height"], record["width"], record["length"], record["video_id"]) == (48, 64, 2, 0)
    assert record["annotations"][0][0]["area"] > 0 and record["annotations"][1] == []
