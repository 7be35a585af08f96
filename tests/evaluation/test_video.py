"""Figures of video instances: the published definition, ground truth fed back, and where ground truth comes from."""

import copy
import json
import logging

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from mask2former.data import DatasetCatalog, MetadataCatalog, register_ytvis_instances
from mask2former.evaluation import InstanceEvaluator, VideoInstanceEvaluator
from mask2former.structures import Instances, TrackMasks
from mask2former.utils.errors import UserError
from tests.evaluation.video_drawing import LABELS, SIZE, draw_videos, tracks_output

AREAS = {"": (0, 1e10), "s": (0, 128**2), "m": (128**2, 256**2), "l": (256**2, 1e10)}


def plain_iou(first, second):
    """Pixels in both tracks, over all frames, by pixels in either."""
    return (first & second).sum() / max((first | second).sum(), 1)


def plain_area(track):
    """Mean over the frames with the object."""
    pixels = track.sum((1, 2))
    return pixels[pixels > 0].mean() if pixels.any() else 0


def plain_verdicts(predicted, true, overlaps, limits, threshold):
    """For tracks [(score, area)], best first: True (right), False (wrong) or None (does not count); and the number of
    objects [(area, crowd)] that count.

    A track takes the free object of greatest IoU, one that counts before one that does not; of equals the last. Crowds
    stay free, and do not count, nor do objects and unmatched tracks outside the limits of area.
    """
    low, high = limits
    ignored = [crowd or not low <= area <= high for area, crowd in true]
    taken, verdicts = set(), []
    for d, (_, area) in enumerate(predicted):
        fitting = [g for g in range(len(true)) if overlaps[d][g] >= threshold and (g not in taken or true[g][1])]
        if not fitting:
            verdicts.append(False if low <= area <= high else None)
            continue
        best = max(fitting, key=lambda g: (not ignored[g], overlaps[d][g], g))
        taken.add(best)
        verdicts.append(None if ignored[best] else True)
    return verdicts, ignored.count(False)


def plain_curve(videos, limits, most, threshold):
    """AP and greatest recall of one class; None and None without objects that count."""
    found, objects = [], 0
    for predicted, true, overlaps in videos:
        verdicts, count = plain_verdicts(predicted[:100], true, overlaps, limits, threshold)
        found += [(score, v) for (score, _), v in zip(predicted[:most], verdicts)]
        objects += count
    if not objects:
        return None, None
    right = np.array([v for _, v in sorted(found, key=lambda pair: -pair[0]) if v is not None], dtype=bool)
    recall, precision = right.cumsum() / objects, right.cumsum() / np.arange(1, len(right) + 1)
    reached = [precision[recall >= level] for level in np.linspace(0, 1, 101)]
    return np.mean([p.max() if p.size else 0 for p in reached]), right.sum() / objects


def plain_figures(data, entries):
    """YouTube-VIS's AP and AR, of the entries of a results file."""
    classes = {}
    for category in data.file["categories"]:
        videos = []
        for video in sorted(data.file["videos"], key=lambda v: v["id"]):
            own = {"video_id": video["id"], "category_id": category["id"]}.items()
            true = [(data.masks[a["id"]], a["iscrowd"]) for a in data.file["annotations"] if own <= a.items()]
            predicted = [(e["score"], decoded(e)) for e in entries if e["video_id"] == video["id"]
                         and e["category_id"] == category["id"]]  # fmt: skip
            predicted.sort(key=lambda pair: -pair[0])
            overlaps = [[plain_iou(p, t) for t, _ in true] for _, p in predicted]
            areas = [(score, plain_area(p)) for score, p in predicted], [(plain_area(t), crowd) for t, crowd in true]
            videos.append((*areas, overlaps))
        classes[category["name"]] = videos
    thresholds = np.linspace(0.5, 0.95, 10)

    def mean(which, area="", most=100, thresholds=thresholds, names=classes):
        found = [plain_curve(classes[name], AREAS[area], most, t)[which] for name in names for t in thresholds]
        found = [value for value in found if value is not None]
        return 100 * np.mean(found) if found else np.nan

    return {
        "AP": mean(0), "AP50": mean(0, thresholds=[0.5]), "AP75": mean(0, thresholds=[0.75]),
        **{f"AP{a}": mean(0, a) for a in "sml"}, **{f"AR{n}": mean(1, most=n) for n in (1, 10, 100)},
        **{f"AR{a}": mean(1, a) for a in "sml"}, **{f"AP-{name}": mean(0, names=[name]) for name in classes},
    }  # fmt: skip


def decoded(entry):
    return np.stack([coco_mask.decode(r).astype(bool) if r else np.zeros(SIZE, bool) for r in entry["segmentations"]])


def evaluate(evaluator, records, outputs):
    evaluator.reset()
    for record, output in zip(records, outputs, strict=True):
        evaluator.process([record], [output])
    return evaluator.evaluate()


def saved(folder):
    return json.loads((folder / "ytvis" / "results.json").read_text())


@pytest.fixture(scope="module")
def drawn_once():
    return draw_videos()


@pytest.fixture
def videos(drawn_once):
    return copy.deepcopy(drawn_once)


@pytest.fixture
def json_file(videos, tmp_path):
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(videos.file))
    return path


def test_equals_the_published_definition(videos, json_file, tmp_path):
    evaluator = VideoInstanceEvaluator(LABELS, tmp_path, json_file=json_file, save_predictions=True)
    results = evaluate(evaluator, videos.records, videos.outputs)
    expected = plain_figures(videos, saved(tmp_path))
    assert results["segm"] == pytest.approx(expected, abs=1e-9, nan_ok=True)
    assert 10 < expected["AP"] < 90
    assert [expected[f"AP{area}"] for area in "sml"] == pytest.approx([50] * 3, abs=49)  # none is nan
    assert expected["AR1"] < expected["AR10"] < expected["AR100"]


def test_a_true_track_without_masks_is_missed(videos, json_file):
    absent = [None] * videos.records[2]["length"]
    empty = {"id": 999, "video_id": 8, "category_id": 7, "iscrowd": 0, "segmentations": absent, "areas": absent}
    outputs = videos.perfect()
    before = evaluate(VideoInstanceEvaluator(LABELS, json_file=json_file), videos.records, outputs)
    videos.file["annotations"].append(empty)
    json_file.write_text(json.dumps(videos.file))
    after = evaluate(VideoInstanceEvaluator(LABELS, json_file=json_file), videos.records, outputs)
    assert before["segm"]["AP-cat"] == 100 > after["segm"]["AP-cat"]
    assert after["frame_segm"]["AP-cat"] == 100  # it is in no frame


def test_ground_truth_fed_back_is_perfect(videos, json_file):
    results = evaluate(VideoInstanceEvaluator(LABELS, json_file=json_file), videos.records, videos.perfect())
    assert list(results) == ["segm", "frame_segm", "tracking"]
    for task in ("segm", "frame_segm"):
        assert {n: v for n, v in results[task].items() if n.startswith("AP") and v != pytest.approx(100)} == {}
    assert results["tracking"]["Recall"] == 100
    assert results["tracking"]["IDSw"] == results["tracking"]["Unstable"] == 0


@pytest.mark.slow
def test_ground_truth_of_davis_fed_back_is_perfect(shared_dir):
    root = shared_dir / "data" / "davis_ytvis"
    register_ytvis_instances("davis_fed_back", {}, root / "instances.json", root / "JPEGImages")
    try:
        records = DatasetCatalog.get("davis_fed_back")
        outputs = []
        for record in records:
            objects = [frame[0] for frame in record["annotations"]]  # one object is in all frames
            masks = np.stack([coco_mask.decode(found["segmentation"]).astype(bool) for found in objects])
            output = tracks_output([masks], [objects[0]["category_id"]], [0.9])
            outputs.append({**output, "image_size": (record["height"], record["width"])})
        results = evaluate(VideoInstanceEvaluator("davis_fed_back"), records, outputs)
    finally:
        DatasetCatalog.remove("davis_fed_back")
        MetadataCatalog.remove("davis_fed_back")
    assert results["segm"]["AP"] == results["frame_segm"]["AP"] == results["tracking"]["Recall"] == 100
    assert results["tracking"]["IDSw"] == results["tracking"]["Unstable"] == 0


def test_records_serve_as_well_as_the_file(videos, json_file):
    expected = evaluate(VideoInstanceEvaluator(LABELS, json_file=json_file), videos.records, videos.outputs)
    seen = [a for a in videos.file["annotations"] if any(a["segmentations"])]
    assert len(seen) == len(videos.file["annotations"])  # a track without masks is not in the records
    np.testing.assert_equal(evaluate(VideoInstanceEvaluator(LABELS), videos.records, videos.outputs), expected)


def test_order_of_videos_and_batches_does_not_matter(videos):
    evaluator = VideoInstanceEvaluator(LABELS)
    expected = evaluate(evaluator, videos.records, videos.outputs)
    evaluator.reset()
    evaluator.process(videos.records[::-1], videos.outputs[::-1])
    evaluator.process(videos.records[:2], videos.outputs[:2])  # as a sampler that pads its share
    np.testing.assert_equal(evaluator.evaluate(), expected)


def run_lengths(entry):
    rles = {t: rle for t, rle in enumerate(entry["segmentations"]) if rle}
    return TrackMasks(rles, len(entry["segmentations"]), SIZE)


def test_encoded_tracks_equal_pixels(videos, tmp_path):
    evaluator = VideoInstanceEvaluator(LABELS, tmp_path, save_predictions=True)
    expected = evaluate(evaluator, videos.records, videos.outputs)
    entries = saved(tmp_path)
    for record, output in zip(videos.records, videos.outputs):
        own = [entry for entry in entries if entry["video_id"] == record["video_id"]]
        output["pred_masks"] = [run_lengths(entry) for entry in own]
        output["pred_scores"] = torch.tensor([entry["score"] for entry in own])
        output["pred_labels"] = torch.tensor([LABELS.dataset_ids.index(entry["category_id"]) for entry in own])
    np.testing.assert_equal(evaluate(evaluator, videos.records, videos.outputs), expected)
    assert saved(tmp_path) == entries


def test_results_file_is_what_servers_take(videos, tmp_path, caplog):
    for record in videos.records:  # as of the published sets whose ground truth the servers keep
        record["annotations"] = [[] for _ in record["file_names"]]
    with caplog.at_level(logging.WARNING):
        assert evaluate(VideoInstanceEvaluator(LABELS, tmp_path), videos.records, videos.outputs) == {}
    assert str(tmp_path / "ytvis" / "results.json") in caplog.text
    entries = saved(tmp_path)
    assert len(entries) == sum(label != 1 for output in videos.outputs for label in output["pred_labels"])
    assert {entry["category_id"] for entry in entries} == {7, 3, 12}
    assert [entry["video_id"] for entry in entries] == sorted(entry["video_id"] for entry in entries)
    first = videos.outputs[4]  # video 2, the first by id
    assert {**entries[0], "segmentations": None} == {
        "video_id": 2, "score": first["pred_scores"][0], "category_id": LABELS.dataset_ids[first["pred_labels"][0]],
        "segmentations": None,
    }  # fmt: skip
    np.testing.assert_array_equal(decoded(entries[0]), first["pred_masks"][0].numpy())
    assert all(rle is None or coco_mask.area(rle) for entry in entries for rle in entry["segmentations"])


def test_frames_are_evaluated_as_images(videos):
    """The AP of frames is what the evaluator of images finds, its areas measured."""
    images, instances = [], []
    for record, output in zip(videos.records, videos.outputs):
        labels, scores = torch.tensor(output["pred_labels"]), torch.tensor(output["pred_scores"])
        for t, objects in enumerate(record["annotations"]):
            image_id = f"{record['video_id']:02}/{t}"
            images.append({"image_id": image_id, "file_name": image_id, "annotations": objects})
            masks = torch.stack([track[t] for track in output["pred_masks"]])
            seen = masks.flatten(1).any(1)
            found = Instances(SIZE, pred_masks=masks[seen], pred_classes=labels[seen], scores=scores[seen])
            instances.append({"instances": found})
    expected = evaluate(InstanceEvaluator(LABELS), images, instances)["segm"]
    results = evaluate(VideoInstanceEvaluator(LABELS), videos.records, videos.outputs)
    np.testing.assert_equal(results["frame_segm"], expected)


def test_mistakes_are_told(videos, json_file):
    record, output = videos.records[0], videos.outputs[0]
    evaluator = VideoInstanceEvaluator(LABELS, json_file=json_file)
    with pytest.raises(UserError, match="no tracks.*META_ARCHITECTURE"):
        evaluator.process([record], [{"instances": None}])
    with pytest.raises(UserError, match="nan"):
        evaluator.process([record], [{**output, "pred_scores": [float("nan")] * len(output["pred_scores"])}])
    with pytest.raises(ValueError, match="expected 9 of"):
        evaluator.process([{**record, "file_names": ["a"] * 9}], [output])
    with pytest.raises(UserError, match="does not list the videos 1234"):
        evaluate(evaluator, [{**record, "video_id": 1234}], [output])
    with pytest.raises(UserError, match="no annotations in its record"):
        VideoInstanceEvaluator(LABELS).process([{**record, "annotations": None}], [output])
    videos.file["annotations"][0]["segmentations"].append(None)
    json_file.write_text(json.dumps(videos.file))
    with pytest.raises(UserError, match="annotation 1 of video 31 has .* segmentations for"):
        evaluate(evaluator, [record], [output])
    videos.file["annotations"][0]["segmentations"].pop()
    frames = videos.file["annotations"][0]["segmentations"]
    frames[0] = {"size": [5, 5], "counts": [25]}
    json_file.write_text(json.dumps(videos.file))
    with pytest.raises(UserError, match="Video 31 of .*instances.json: frame 0 of annotation 1 is 5x5"):
        evaluate(evaluator, [record], [output])
    videos.file["categories"].pop()
    json_file.write_text(json.dumps(videos.file))
    with pytest.raises(UserError, match="no category of the ids 12"):
        evaluate(evaluator, [record], [output])
