"""Passes that end early: what was predicted until then is written, and the error comes through."""

import contextlib
import json
import threading

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image

from mask2former.data.reading import read_panoptic
from mask2former.evaluation import (
    DatasetEvaluators,
    InstanceEvaluator,
    PanopticEvaluator,
    SemSegEvaluator,
    VideoInstanceEvaluator,
    files,
    inference_on_dataset,
    panoptic,
)
from mask2former.structures import Instances, LabelSet
from mask2former.utils.errors import UserError
from tests.evaluation.video_drawing import LABELS, draw_videos

MESSAGE = "Video 8: Image 8/1.jpg cannot be read (truncated). Replace the file or take it out of the data set."


class Recall(torch.nn.Module):
    """Predicts what the input holds already; an input without prediction is one that cannot be read."""

    def forward(self, inputs):
        if any("output" not in sample for sample in inputs):
            raise UserError(MESSAGE)
        return [sample["output"] for sample in inputs]


def batches_of(records, outputs, broken):
    whole = [[{**record, "output": output}] for record, output in zip(records, outputs, strict=True)]
    return [[records[i]] if i == broken else batch for i, batch in enumerate(whole)]


def entries(path):
    return json.loads(path.read_text())


def test_tracks_of_the_videos_before_are_kept(tmp_path, caplog):
    videos = draw_videos()
    evaluator = VideoInstanceEvaluator(LABELS, tmp_path / "part")
    with pytest.raises(UserError, match="8/1.jpg cannot be read"):
        inference_on_dataset(Recall(), batches_of(videos.records, videos.outputs, broken=2), evaluator)
    kept = tmp_path / "part" / "ytvis" / "results_unfinished.json"
    assert str(kept) in caplog.text and not kept.with_name("results.json").exists()
    whole = VideoInstanceEvaluator(LABELS, tmp_path / "whole", save_predictions=True)
    inference_on_dataset(Recall(), batches_of(videos.records, videos.outputs, broken=None), whole)
    done = {record["video_id"] for record in videos.records[:2]}
    expected = [e for e in entries(tmp_path / "whole" / "ytvis" / "results.json") if e["video_id"] in done]
    assert len(expected) > 0 and entries(kept) == expected


def test_all_kinds_of_results_of_images_are_kept(tmp_path):
    labels, size = LabelSet(("a", "b"), thing_ids=(0,)), (8, 12)
    Image.fromarray(np.zeros(size, np.uint8)).save(tmp_path / "truth.png")
    Image.fromarray(np.ones(size, np.uint8)).save(tmp_path / "pan.png")
    segments = [{"id": 1, "category_id": 0, "isthing": True}]
    truth = {"sem_seg_file_name": str(tmp_path / "truth.png"), "pan_seg_file_name": str(tmp_path / "pan.png")}
    records = [{"file_name": f"{i}.jpg", "image_id": i, "segments_info": segments, **truth} for i in range(3)]
    instances = _instances(size)
    output = {"sem_seg": torch.rand(2, *size), "panoptic_seg": (torch.ones(size, dtype=torch.int32), segments)}
    kinds = (SemSegEvaluator, PanopticEvaluator, InstanceEvaluator)
    evaluators = [kind(labels, tmp_path, save_predictions=True) for kind in kinds]
    with pytest.raises(UserError, match="cannot be read"):
        batches = batches_of(records, [{**output, "instances": instances}] * 3, broken=2)
        inference_on_dataset(Recall(), batches, evaluators)
    assert {e["file_name"] for e in entries(tmp_path / "sem_seg_predictions_unfinished.json")} == {"0.jpg", "1.jpg"}
    assert [e["image_id"] for e in entries(tmp_path / "predictions_unfinished.json")["annotations"]] == [0, 1]
    assert [e["image_id"] for e in entries(tmp_path / "coco_instances_results_unfinished.json")] == [0, 1]


def test_what_cannot_be_kept_does_not_hide_the_error(tmp_path, caplog):
    videos = draw_videos()
    (tmp_path / "full").write_text("a file where the folder should be")
    evaluators = [VideoInstanceEvaluator(LABELS, tmp_path / folder) for folder in ("full", "good")]
    for given in (evaluators[0], evaluators):
        with pytest.raises(UserError, match="8/1.jpg cannot be read"):
            inference_on_dataset(Recall(), batches_of(videos.records, videos.outputs, broken=2), given)
    assert "VideoInstanceEvaluator: what was predicted before cannot be kept" in caplog.text
    assert len(entries(tmp_path / "good" / "ytvis" / "results_unfinished.json")) > 0


def test_an_error_of_the_last_images_background_work_ends_the_pass(tmp_path):
    size, segments = (8, 12), [{"id": 1, "category_id": 0, "isthing": True}]
    Image.fromarray(np.ones(size, np.uint8)).save(tmp_path / "pan.png")
    truth = {"pan_seg_file_name": str(tmp_path / "pan.png"), "segments_info": segments}
    records = [{"file_name": f"{i}.jpg", "image_id": i, **truth} for i in range(2)]
    records[1]["pan_seg_file_name"] = str(tmp_path / "absent.png")
    evaluator = PanopticEvaluator(LabelSet(("a",), thing_ids=(0,)), tmp_path, save_predictions=True)
    outputs = [{"panoptic_seg": (torch.ones(size, dtype=torch.int32), segments)}] * 2
    with pytest.raises((UserError, OSError), match="absent.png"):
        inference_on_dataset(Recall(), batches_of(records, outputs, broken=None), evaluator)
    kept = entries(tmp_path / "predictions_unfinished.json")["annotations"]
    assert [e["image_id"] for e in kept] == [0]


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="no space"):
        files.write_json([1], tmp_path / "figures.json")
    assert list(tmp_path.iterdir()) == []


def test_panoptic_predictions_beside_one_that_fails_are_kept(tmp_path, caplog, monkeypatch):
    size = (8, 12)
    Image.fromarray(np.ones(size, np.uint8)).save(tmp_path / "pan.png")
    segments = [{"id": 1, "category_id": 0, "isthing": True}]
    truth = {"pan_seg_file_name": str(tmp_path / "pan.png"), "segments_info": segments}
    records = [{"file_name": f"{i}.jpg", "image_id": i, **truth} for i in range(6)]
    records[2]["pan_seg_file_name"] = str(tmp_path / "absent.png")
    (tmp_path / "panoptic" / "4.png").mkdir(parents=True)  # where a file should be: an OSError
    evaluator = PanopticEvaluator(LabelSet(("a",), thing_ids=(0,)), tmp_path, save_predictions=True)
    output = {"panoptic_seg": (torch.ones(size, dtype=torch.int32), segments)}
    gate = threading.Event()  # so that all are in work when the first one fails
    monkeypatch.setattr(panoptic, "read_panoptic", lambda path: gate.wait(5) and read_panoptic(path))
    evaluator.process(records, [output] * 6)
    gate.set()
    evaluator.keep()
    kept = [e["image_id"] for e in entries(tmp_path / "predictions_unfinished.json")["annotations"]]
    assert kept == [0, 1, 3, 5] and "left out" in caplog.text


@pytest.mark.parametrize("save", [False, True])
def test_a_later_whole_pass_removes_the_part(tmp_path, save):
    videos = draw_videos()
    evaluator = VideoInstanceEvaluator(LABELS, tmp_path, save_predictions=save)
    for broken, error in ((2, pytest.raises(UserError)), (None, contextlib.nullcontext())):
        with error:
            inference_on_dataset(Recall(), batches_of(videos.records, videos.outputs, broken), evaluator)
        assert (tmp_path / "ytvis" / "results_unfinished.json").exists() == (broken is not None)
    assert (tmp_path / "ytvis" / "results.json").exists() == save


def _instances(size):
    mask = torch.zeros(1, *size, dtype=torch.bool)
    mask[:, :4] = True
    return Instances(size, pred_masks=mask, scores=torch.tensor([0.9]), pred_classes=torch.tensor([0]))


def test_nothing_is_written_without_predictions_or_folder(tmp_path):
    videos = draw_videos()
    evaluators = DatasetEvaluators([VideoInstanceEvaluator(LABELS), SemSegEvaluator(LABELS, tmp_path)])
    assert evaluators.keep() == []
    with pytest.raises(RuntimeError, match="out of memory"):  # whatever the error is, it comes through
        inference_on_dataset(_Exhausted(), [[videos.records[0]]], evaluators)
    assert list(tmp_path.iterdir()) == []


class _Exhausted(torch.nn.Module):
    def forward(self, inputs):
        raise RuntimeError("out of memory")


def test_evaluators_of_another_package_may_not_keep(tmp_path):
    class Foreign:
        def reset(self):
            pass

    with pytest.raises(RuntimeError, match="out of memory"):
        inference_on_dataset(_Exhausted(), [[{"file_name": "a"}]], [Foreign()])


def test_predictions_survive_ground_truth_that_does_not_fit(tmp_path, caplog):
    videos = draw_videos()
    videos.file["annotations"][0]["segmentations"].append(None)
    (tmp_path / "truth.json").write_text(json.dumps(videos.file))
    evaluator = VideoInstanceEvaluator(LABELS, tmp_path, json_file=tmp_path / "truth.json")
    with pytest.raises(UserError, match="annotation 1 of video 31 has"):
        inference_on_dataset(Recall(), batches_of(videos.records, videos.outputs, broken=None), evaluator)
    assert len(entries(tmp_path / "ytvis" / "results.json")) > 0
    assert "The ground truth does not fit: no AP of 6 videos" in caplog.text


def worker(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    videos = draw_videos()
    batches = batches_of(videos.records, videos.outputs, broken=1)[rank::2]  # rank 1 fails at once, rank 0 never
    try:
        inference_on_dataset(Recall(), batches, VideoInstanceEvaluator(LABELS, folder))
    except UserError as error:
        (folder / f"rank{rank}").write_text(str(error))
    dist.destroy_process_group()


@pytest.mark.slow
def test_the_other_ranks_finish_their_shares(tmp_path):
    torch.multiprocessing.spawn(worker, (tmp_path,), nprocs=2)
    assert (tmp_path / "rank0").read_text() == (tmp_path / "rank1").read_text() == MESSAGE
    videos = draw_videos()
    kept = {e["video_id"] for e in entries(tmp_path / "ytvis" / "results_unfinished.json")}
    assert kept == {record["video_id"] for record in videos.records[::2]}
