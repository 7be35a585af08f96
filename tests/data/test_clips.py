"""Clips: which frames they have, that their frames change alike, and that objects keep their places."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from mask2former.data import build_test_loader, build_train_loader
from mask2former.data.build import build_clip_transform, build_train_mapper, mapper_name
from mask2former.data.clips import ClipMapper, ClipSampling
from mask2former.data.datasets.build import checked_records
from mask2former.data.mapper import TrainMapper
from mask2former.data.targets import InstanceAnnotation
from mask2former.data.video_frames import VideoFrames
from mask2former.structures import LabelSet, rle_encode
from mask2former.utils.errors import UserError

LABELS = LabelSet(tuple("abcde"))
SIZE = (40, 60)


def _unchanged(*clip):
    return clip


@pytest.fixture
def moving_box(tmp_path):
    """A record of 6 frames, its size 40x60: a box of track 7 moves to the right and is absent in frame 3; a second
    one, track 4, below it, shows in frames 0 and 1; a crowd in all. A box's red is 20 times its track."""
    names, annotations = [], []
    for t in range(6):
        pixels, objects = np.zeros((*SIZE, 3), np.uint8), []
        for track, k, top, present in ((7, 1, 4, t != 3), (4, 2, 24, t < 2)):
            if present:
                mask = np.zeros(SIZE, bool)
                mask[top : top + 10, 4 + 6 * t : 16 + 6 * t] = True
                pixels[mask, 0] = 20 * track
                objects.append({"id": track, "category_id": k, "iscrowd": 0, "segmentation": rle_encode(mask)})
        crowd = np.zeros(SIZE, bool)
        crowd[36:] = True
        objects.append({"id": 9, "category_id": 3, "iscrowd": 1, "segmentation": rle_encode(crowd)})
        names.append(str(tmp_path / f"{t}.png"))
        Image.fromarray(pixels).save(names[-1])
        annotations.append(objects)
    shared = {"video_id": 1, "height": SIZE[0], "width": SIZE[1], "length": 6}
    return {**shared, "file_names": names, "annotations": annotations}


# ---------------------------------------------------------------- frames


@pytest.mark.parametrize(("num", "reach", "length"), [(2, 20, 50), (3, 2, 9), (5, 1, 30), (1, 20, 7), (4, 10, 1)])
def test_frames_lie_around_a_reference(num, reach, length):
    torch.manual_seed(0)
    seen = Counter()
    for _ in range(300):
        frames = ClipSampling(num, reach).draw(length)
        assert len(frames) == num and frames == sorted(frames) and 0 <= frames[0] and frames[-1] < length
        assert any(frames[0] >= t - reach and frames[-1] <= t + reach for t in frames)  # t may be the reference
        near = min(length, reach + 1)  # the fewest frames within reach
        assert len(set(frames)) >= min(num, near)
        seen.update(frames)
    assert set(seen) == set(range(length))


def test_shuffled_frames_are_the_same_frames():
    torch.manual_seed(0)
    plain = [ClipSampling(4, 5).draw(20) for _ in range(20)]
    shuffled = [ClipSampling(4, 5, shuffle=True).draw(20) for _ in range(100)]
    assert all(frames == sorted(frames) for frames in plain)
    assert 0 < sum(frames == sorted(frames) for frames in shuffled) < 20  # 1 in 24 by chance


@pytest.mark.parametrize(("num", "reach", "key"), [(0, 1, "NUM is 0; expected 1"), (2, -1, "RANGE is -1; expected 0")])
def test_wrong_sampling_is_refused(num, reach, key):
    with pytest.raises(UserError, match=f"INPUT.SAMPLING_FRAME_{key} or more"):
        ClipSampling(num, reach)


# ---------------------------------------------------------------- samples


def test_objects_keep_their_places(moving_box):
    sample = ClipMapper(ClipSampling(6, 6), _unchanged)(moving_box)
    assert sample["file_names"] == moving_box["file_names"] and "annotations" not in sample
    assert (sample["height"], sample["width"], sample["video_id"]) == (*SIZE, 1)
    for t, (image, instances) in enumerate(zip(sample["image"], sample["instances"], strict=True)):
        assert image.shape == (3, *SIZE) and image.dtype == torch.uint8 and instances.image_size == SIZE
        assert instances.gt_classes.tolist() == [2, 1]
        assert instances.gt_ids.tolist() == [4 if t < 2 else -1, 7 if t != 3 else -1]
        for track, mask in zip((4, 7), instances.gt_masks, strict=True):
            assert torch.equal(mask, image[0] == 20 * track)


def test_compact_masks_are_the_same(moving_box):
    mapper = ClipMapper(ClipSampling(6, 6), _unchanged)
    dense = mapper(moving_box)["instances"]
    mapper.compact = True
    for a, b in zip(dense, mapper(moving_box)["instances"], strict=True):
        assert torch.equal(a.gt_masks, b.gt_masks.tensor) and torch.equal(a.gt_ids, b.gt_ids)


def test_a_clip_without_objects(moving_box):
    moving_box["annotations"] = [[objects[-1]] for objects in moving_box["annotations"]]  # crowds alone
    for instances in ClipMapper(ClipSampling(2, 6), _unchanged)(moving_box)["instances"]:
        assert instances.gt_masks.shape == (0, *SIZE) and len(instances.gt_ids) == len(instances.gt_classes) == 0


def test_objects_that_the_crop_cuts_away_are_left_out(moving_box):
    def lower_half(images, masks):
        return images[..., 20:, :], masks[..., 20:, :]

    for instances in ClipMapper(ClipSampling(6, 6), lower_half)(moving_box)["instances"]:
        assert instances.gt_classes.tolist() == [2]


def test_overlapping_objects_keep_all_their_pixels(moving_box):
    wide = np.zeros(SIZE, bool)
    wide[2:30] = True
    for objects in moving_box["annotations"]:
        objects.append({"id": 1, "category_id": 0, "iscrowd": 0, "segmentation": rle_encode(wide)})
    sample = ClipMapper(ClipSampling(6, 6), _unchanged)(moving_box)
    for image, instances in zip(sample["image"], sample["instances"], strict=True):
        assert torch.equal(instances.gt_masks[0], torch.from_numpy(wide))
        assert torch.equal(instances.gt_masks[2], image[0] == 140)


def test_an_image_is_a_clip_of_one_frame(moving_box):
    """Of a picture the mapper of clips makes what that of images makes."""
    image = {"file_name": moving_box["file_names"][0], "annotations": moving_box["annotations"][0]}
    sample = ClipMapper(ClipSampling(1, 20), _unchanged)(image)
    (pixels,), (instances,) = sample["image"], sample["instances"]
    assert torch.equal(instances.gt_masks[0], pixels[0] == 140) and torch.equal(instances.gt_masks[1], pixels[0] == 80)
    assert instances.gt_classes.tolist() == [1, 2] and sample["file_names"] == [image["file_name"]]


def test_one_frame_equals_the_image_path(video_cfg, drawn_videos, moving_box):
    """With the same random numbers, a clip of one frame is the sample that the image mapper makes of it."""
    words = ["brightness", "rotation"]
    cfg = video_cfg(drawn_videos, "INPUT.AUGMENTATIONS", words, "INPUT.MIN_SIZE_TRAIN", [30, 50])
    transform = build_clip_transform(cfg)
    image = {"file_name": moving_box["file_names"][0], "annotations": moving_box["annotations"][0]}
    for seed in range(5):
        torch.manual_seed(seed)
        plain = TrainMapper(InstanceAnnotation(), transform)(image)
        torch.manual_seed(seed)
        clip = ClipMapper(ClipSampling(1, 20), transform)(image)
        (pixels,), (instances,) = clip["image"], clip["instances"]
        assert torch.equal(pixels, plain["image"])
        assert torch.equal(instances.gt_masks, plain["instances"].gt_masks)
        assert torch.equal(instances.gt_classes, plain["instances"].gt_classes)


def test_a_picture_becomes_a_clip_whose_objects_move(moving_box):
    torch.manual_seed(0)
    image = {"file_name": moving_box["file_names"][0], "annotations": moving_box["annotations"][0]}
    image["annotations"][0]["segmentation"] = [[4, 4, 16, 4, 16, 14, 4, 14]]  # polygons, as in COCO
    sample = ClipMapper(ClipSampling(4, 20), _unchanged)(image)
    frames = sample["image"]
    assert len(frames) == 4 and all(frame.shape == (3, *SIZE) for frame in frames)
    assert not any(torch.equal(frames[0], frame) for frame in frames[1:])
    assert {tuple(instances.gt_classes.tolist()) for instances in sample["instances"]} == {(1, 2)}
    ids = torch.stack([instances.gt_ids for instances in sample["instances"]])
    assert ((ids == torch.tensor([1, 2])) | (ids == -1)).all() and (ids > 0).any(0).all()
    for pixels, instances in zip(frames, sample["instances"], strict=True):
        for red, mask in zip((140, 80), instances.gt_masks, strict=True):
            assert (pixels[0][mask] > red / 3).float().mean() > 0.9 or not mask.any()  # edges are blended


# ---------------------------------------------------------------- augmentations


def test_all_frames_of_a_clip_change_alike(video_cfg, drawn_videos, tmp_path):
    """The same picture, as every frame of a video, stays the same in every frame of a sample."""
    rng = np.random.default_rng(0)
    name = str(tmp_path / "a.png")
    Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(name)
    mask = {"id": 1, "category_id": 0, "iscrowd": 0, "segmentation": rle_encode(rng.random((48, 64)) > 0.5)}
    record = {"video_id": 1, "file_names": [name] * 8, "annotations": [[mask]] * 8, "height": 48, "width": 64}
    augment = ["brightness", "contrast", "saturation", "rotation"]
    crop = ("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute_range", "INPUT.CROP.SIZE", [30, 44])
    sampling = ("INPUT.MIN_SIZE_TRAIN_SAMPLING", "range_by_clip", "INPUT.RANDOM_FLIP", "flip_by_clip")
    frames = ("INPUT.SAMPLING_FRAME_NUM", 3, "INPUT.AUGMENTATIONS", augment)
    mapper = build_train_mapper(video_cfg(drawn_videos, *crop, *sampling, *frames), LABELS)
    torch.manual_seed(0)
    seen = []
    for _ in range(8):
        sample = mapper(record)
        first, masks = sample["image"][0], sample["instances"][0].gt_masks
        assert len(sample["image"]) == 3 and 24 <= min(first.shape[1:]) <= 48
        for image, instances in zip(sample["image"][1:], sample["instances"][1:], strict=True):
            assert torch.equal(first, image) and torch.equal(masks, instances.gt_masks)
        seen.append(first)
    assert len({tuple(image.shape) for image in seen}) > 4


def test_rotation_turns_image_and_masks_together(video_cfg, drawn_videos, moving_box):
    cfg = video_cfg(drawn_videos, "INPUT.AUGMENTATIONS", ["rotation"], "INPUT.RANDOM_FLIP", "none")
    cfg.INPUT.MIN_SIZE_TRAIN = [40]
    torch.manual_seed(0)
    moved = 0
    for _ in range(6):
        sample = ClipMapper(ClipSampling(6, 6), build_clip_transform(cfg))(moving_box)
        for image, instances in zip(sample["image"], sample["instances"], strict=True):
            for red, mask in zip((80, 140), instances.gt_masks, strict=True):
                share = (image[0][mask].float() - red).abs().lt(30).float().mean()
                assert share > 0.7 or mask.sum() < 40
        moved += not torch.equal(
            sample["image"][0][0] > 0, ClipMapper(ClipSampling(6, 6), _unchanged)(moving_box)["image"][0][0] > 0
        )
    assert moved > 4


def test_unknown_augmentations_are_refused(video_cfg, drawn_videos):
    with pytest.raises(UserError, match="INPUT.AUGMENTATIONS has 'rotate'.*Did you mean 'rotation'"):
        build_clip_transform(video_cfg(drawn_videos, "INPUT.AUGMENTATIONS", ["rotate"]))


# ---------------------------------------------------------------- loaders


def test_video_models_find_their_mapper(video_cfg, drawn_videos):
    cfg = video_cfg(drawn_videos)
    assert mapper_name(cfg) == "ytvis" and isinstance(build_train_mapper(cfg, LABELS), ClipMapper)
    batches = build_train_loader(cfg, compact_masks=True)
    for _ in range(3):
        for sample in next(batches):
            assert len(sample["image"]) == len(sample["instances"]) == 2
            assert len(sample["instances"][0]) == len(sample["instances"][1]) > 0


def test_image_mappers_refuse_videos(video_cfg, drawn_videos):
    cfg = video_cfg(drawn_videos, "INPUT.DATASET_MAPPER_NAME", "coco_instance_lsj")
    with pytest.raises(
        UserError, match="'coco_instance_lsj' makes samples of images. Set INPUT.DATASET_MAPPER_NAME yt"
    ):
        build_train_loader(cfg)


def test_videos_without_objects_may_be_left_out(video_cfg, videos_root, edit_json):
    edit_json(videos_root / "train.json", lambda content: content["annotations"].clear())
    with pytest.raises(UserError, match="None of the 3 videos of .*FILTER_EMPTY_ANNOTATIONS False"):
        build_train_loader(video_cfg(videos_root))
    batches = build_train_loader(video_cfg(videos_root, "DATALOADER.FILTER_EMPTY_ANNOTATIONS", False))
    assert {len(instances) for sample in next(batches) for instances in sample["instances"]} == {0}


def test_repeated_videos(video_cfg, drawn_videos, caplog):
    caplog.set_level("INFO")
    opts = ("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler", "DATALOADER.REPEAT_THRESHOLD", 1.0)
    assert len(next(build_train_loader(video_cfg(drawn_videos, *opts)))) == 2
    assert "of 3 training videos are repeated" in caplog.text


def test_coco_images_train_a_video_model(drawn_videos, shapes_root, video_cfg):
    split = {"IMAGES": "train/images", "ANNOTATIONS": "annotations/instances_train.json"}
    custom = {"coco": {"TYPE": "coco_instances", "ROOT": str(shapes_root), "SPLITS": {"train": split}}}
    cfg = video_cfg(drawn_videos, "DATASETS.CUSTOM", custom, "DATASETS.TRAIN", ["coco_train", "vid_train"])
    kinds = Counter("image_id" in sample for _, batch in zip(range(8), build_train_loader(cfg)) for sample in batch)
    assert kinds[True] > 0 and kinds[False] > 0


@pytest.mark.parametrize("workers", [0, 1])
def test_whole_videos_are_evaluated_frame_by_frame(workers, video_cfg, drawn_videos, moving_shapes):
    cfg = video_cfg(drawn_videos, "DATALOADER.NUM_WORKERS", workers)
    loader = build_test_loader(cfg, "vid_valid")
    assert len(loader) == 2
    for index, (sample,) in enumerate(loader):
        drawn, _, _ = moving_shapes.draw_video(0, 1, index, 64)
        frames = sample["image"]
        assert len(frames) == sample["length"] == len(drawn) and (sample["height"], sample["width"]) == (48, 64)
        assert sample["video_id"] == index + 1 and len(sample["annotations"]) == len(drawn)
        for t, frame in enumerate(frames):
            assert frame.shape == (3, 24, 32) and frame.dtype == torch.uint8
            assert torch.equal(frame, frames[t])
            assert abs(float(frame.float().mean()) - drawn[t].mean()) < 3  # JPEG, and half the size


def test_frames_are_read_when_they_are_asked_for(tmp_path):
    names = [str(tmp_path / f"{t}.png") for t in range(30)]
    for name in names[:20]:
        Image.new("RGB", (6, 4)).save(name)
    Image.new("RGB", (6, 5)).save(names[3])
    record = {"video_id": 7, "file_names": names, "height": 4, "width": 6}
    frames = VideoFrames(record, lambda pixels: torch.from_numpy(pixels))
    assert len(frames) == 30 and frames[0].shape == (4, 6, 3)
    seen = []
    with pytest.raises(UserError, match="Video 7: .*3.png is 5x6 pixels .* resize the frame"):
        for frame in frames:
            seen.append(frame)
    assert len(seen) == 3
    with pytest.raises(UserError, match="Video 7: .*25.png does not exist"):
        frames[25]


def test_records_are_not_changed(video_cfg, drawn_videos):
    cfg = video_cfg(drawn_videos)
    record = checked_records(cfg, "vid_train", True)[0]
    before = repr(record)
    build_train_mapper(cfg, LABELS)(record)
    assert repr(record) == before
