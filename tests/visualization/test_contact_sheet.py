"""The contact sheet: a readable PNG, spread over the data, small in memory."""

import numpy as np
import pytest
import torch
from PIL import Image

from mask2former.structures import Instances, LabelSet, TrackMasks, rle_encode
from mask2former.utils import comm
from mask2former.visualization import ContactSheet
from mask2former.visualization.thumbnails import shrink

LABELS = LabelSet(("sky", "road", "never"), colors=((0, 0, 255), (255, 0, 0), (0, 255, 0)))


@pytest.fixture
def files(tmp_path):
    """An image that is black, and a mask: left half sky, right half road, upper left corner ignored."""
    mask = np.zeros((60, 80), np.uint8)
    mask[:, 40:] = 1
    mask[:20, :20] = 255
    Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(tmp_path / "im.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return {"file_name": str(tmp_path / "im.png"), "sem_seg_file_name": str(tmp_path / "mask.png")}


def scores(k, size=(60, 80)):
    """A prediction of class k everywhere."""
    return {"sem_seg": torch.nn.functional.one_hot(torch.full(size, k), 3).permute(2, 0, 1)}


def test_rows_of_image_truth_and_prediction(files, tmp_path):
    sheet = ContactSheet(LABELS, tmp_path / "out" / "sheet.png", 4)
    sheet.add(files, scores(1))
    assert sheet.save() == tmp_path / "out" / "sheet.png"
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["sheet.png"]
    page = np.array(Image.open(tmp_path / "out" / "sheet.png")).astype(int)
    row = page[page.shape[0] // 2]
    blue, red = (row[:, 2] > 120) & (row[:, 0] < 60), (row[:, 0] > 120) & (row[:, 2] < 60)
    # columns of 360 pixels: truth is half blue, half red; the prediction all red
    assert 170 <= blue.sum() <= 182
    assert 530 <= red.sum() <= 542
    legend = page[:, 3 * 360 + 4 * 10 :].reshape(-1, 3)
    assert (legend == LABELS.palette()[0]).all(1).any()
    assert (legend == LABELS.palette()[1]).all(1).any()
    assert not (legend == LABELS.palette()[2]).all(1).any()  # only classes on the page


def middle_row(path):
    """The pixels of a page's middle row, without the legend: image, ground truth and prediction side by side."""
    page = np.array(Image.open(path)).astype(int)
    return np.split(page[page.shape[0] // 2, 10 : 10 + 3 * 370], 3)


def is_red(pixels):
    return (pixels[:, 0] > 100) & (pixels[:, 2] < 60)


def test_panoptic_results_beside_panoptic_truth(files, tmp_path):
    ids = np.full((60, 80), 300)
    ids[:, 40:] = 2
    Image.fromarray(np.stack([ids % 256, ids // 256, ids * 0], -1).astype(np.uint8)).save(tmp_path / "pan.png")
    segments = [{"id": 300, "category_id": 0, "isthing": False}, {"id": 2, "category_id": 1, "isthing": True}]
    sample = {**files, "pan_seg_file_name": str(tmp_path / "pan.png"), "segments_info": segments}
    found = {"panoptic_seg": (torch.full((60, 80), 7), [{"id": 7, "category_id": 1, "isthing": True}])}
    sheet = ContactSheet(LABELS, tmp_path / "sheet.png", 1)
    sheet.add(sample, {**scores(0), **found})  # the panoptic result is shown, not the semantic one
    _, truth, prediction = middle_row(sheet.save())
    assert 170 <= is_red(truth).sum() <= 182
    assert is_red(prediction).sum() >= 350


def test_instances_above_the_threshold_beside_annotations(files, tmp_path):
    mask = np.zeros((60, 80), bool)
    mask[:, :20] = True
    annotations = [{"category_id": 1, "iscrowd": 0, "segmentation": rle_encode(mask)}]
    sample = {**files, "annotations": annotations, "height": 60, "width": 80}
    masks = torch.from_numpy(np.stack([mask, ~mask]))
    for threshold, share in ((0.5, 0.25), (0.1, 1)):
        found = Instances(
            (60, 80), pred_masks=masks, pred_classes=torch.tensor([1, 1]), scores=torch.tensor([0.9, 0.2])
        )
        sheet = ContactSheet(LABELS, tmp_path / f"sheet_{threshold}.png", 1, threshold)
        sheet.add(sample, {"instances": found})
        _, truth, prediction = middle_row(sheet.save())
        assert abs(is_red(truth).sum() - 90) <= 6
        assert abs(is_red(prediction).sum() - 360 * share) <= 10


def test_an_image_without_objects_is_a_row(files, tmp_path):
    none = Instances((60, 80), pred_masks=torch.zeros(0, 60, 80), pred_classes=torch.zeros(0), scores=torch.zeros(0))
    sheet = ContactSheet(LABELS, tmp_path / "sheet.png", 1)
    sheet.add({**files, "annotations": [], "height": 60, "width": 80}, {"instances": none})
    _, truth, prediction = middle_row(sheet.save())
    assert not is_red(truth).any() and not is_red(prediction).any()


def test_of_a_video_the_middle_frame_is_shown(files, tmp_path):
    """Its left half is red in truth and prediction; faint tracks, and those of other frames, are not shown."""
    left, right = np.zeros((2, 60, 80), bool)
    left[:, :40], right[:, 40:] = True, True
    objects = [{"id": 1, "category_id": 1, "iscrowd": 0, "segmentation": rle_encode(mask)} for mask in (right, left)]
    empty = np.zeros_like(left)
    tracks = [torch.from_numpy(np.stack(track)) for track in ((empty, left, empty), (right, empty, right))]
    encoded = TrackMasks({1: rle_encode(right)}, 3, (60, 80))  # as windows give them; faint
    names = ["absent.png", files["file_name"], "absent.png"]
    record = {"video_id": 3, "file_names": names, "annotations": [objects[:1], objects[1:], objects[:1]]}
    output = {"image_size": (60, 80), "pred_scores": [0.9, 0.8, 0.1], "pred_labels": [1, 1, 1]}
    sheet = ContactSheet(LABELS, tmp_path / "sheet.png", 1)
    sheet.add({**record, "height": 60, "width": 80}, {**output, "pred_masks": [*tracks, encoded]})
    _, truth, prediction = middle_row(sheet.save())
    for pixels in (truth, prediction):
        assert is_red(pixels[:175]).mean() > 0.9
        assert not is_red(pixels[185:355]).any()


def test_rows_are_spread_over_the_data(files, tmp_path, monkeypatch):
    sheet = ContactSheet(LABELS, tmp_path / "sheet.png", 4)
    for i in range(103):
        sheet.add({**files, "file_name": i}, scores(0))
        assert len(sheet._rows) <= 8
    chosen = []
    monkeypatch.setattr(
        sheet, "_page", lambda rows: chosen.extend(r.file_name for r in rows) or Image.new("RGB", (9, 9))
    )
    sheet.save()
    assert len(chosen) == 4
    assert chosen[0] == 0
    assert chosen[-1] >= 75
    steps = np.diff(chosen)
    assert steps.max() <= 2 * steps.min()


def test_shares_of_all_ranks_are_on_the_page(files, tmp_path, monkeypatch):
    sheets = [ContactSheet(LABELS, tmp_path / "sheet.png", 4) for _ in range(2)]
    for i in range(4):
        sheets[i // 2].add({**files, "file_name": i}, scores(0))
    monkeypatch.setattr(comm, "gather", lambda rows: [sheet._rows for sheet in sheets])
    seen = []
    monkeypatch.setattr(
        sheets[0], "_page", lambda rows: seen.extend(r.file_name for r in rows) or Image.new("RGB", (9, 9))
    )
    sheets[0].save()
    assert seen == [0, 1, 2, 3]


def test_other_ranks_write_nothing(files, tmp_path, monkeypatch):
    sheet = ContactSheet(LABELS, tmp_path / "sheet.png", 4)
    sheet.add(files, scores(0))
    monkeypatch.setattr(comm, "gather", lambda rows: [])
    assert sheet.save() is None
    assert not (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize("count", [0, 3])
def test_nothing_to_show_writes_nothing(files, tmp_path, count):
    sheet = ContactSheet(LABELS, tmp_path / "sheet.png", count)
    if not count:
        sheet.add(files, scores(0))
    assert sheet.save() is None
    assert list(tmp_path.glob("sheet*")) == []


def test_images_without_ground_truth_and_of_mixed_shapes(files, tmp_path):
    sheet = ContactSheet(LABELS, tmp_path / "sheet.png", 4)
    Image.fromarray(np.zeros((200, 10, 3), np.uint8)).save(tmp_path / "tall.png")
    sheet.add({"file_name": str(tmp_path / "tall.png")}, scores(2, (200, 10)))
    sheet.add(files, scores(0))
    sheet.save()
    assert Image.open(tmp_path / "sheet.png").height > 360


def test_many_classes_get_several_legend_columns(files, tmp_path):
    labels = LabelSet(tuple(f"class {k}" for k in range(120)))
    sheet = ContactSheet(labels, tmp_path / "sheet.png", 1)
    sem = torch.arange(60 * 80).view(60, 80) % 120
    sheet.add({"file_name": files["file_name"]}, {"sem_seg": torch.nn.functional.one_hot(sem, 120).permute(2, 0, 1)})
    sheet.save()
    assert Image.open(tmp_path / "sheet.png").width > 3 * 360 + 4 * 10 + 5 * 60


def test_shrinking_keeps_values_and_shape():
    big = np.repeat(np.repeat(np.arange(4).reshape(2, 2), 720, 0), 1440, 1)
    small = shrink(big, 360)
    assert small.shape == (180, 360)
    np.testing.assert_array_equal(small[[0, 0, -1, -1], [0, -1, 0, -1]], [0, 1, 2, 3])
    assert shrink(np.zeros((1, 2000)), 360).shape == (1, 360)
