"""Two processes report of instances what one process does."""

import pickle

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image

from mask2former.evaluation import CityscapesInstanceEvaluator, InstanceEvaluator, inference_on_dataset
from mask2former.structures import builtin_labels


class Recall(torch.nn.Module):
    """Predicts what the input holds already."""

    def forward(self, inputs):
        return [record["output"] for record in inputs]


def evaluate(folder, labels, batches, trees):
    coco = inference_on_dataset(Recall(), batches, InstanceEvaluator(labels, folder, save_predictions=True))
    labels = builtin_labels("cityscapes_fine_instance_seg_val")
    cityscapes = CityscapesInstanceEvaluator(labels, folder, gt_dir=trees)
    return coco, inference_on_dataset(Recall(), batches, cityscapes)


def worker(rank, folder, labels, batches, trees):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    results = evaluate(folder / "two", labels, batches[rank::2], trees)
    (folder / f"rank{rank}").write_bytes(pickle.dumps(results))
    dist.destroy_process_group()


@pytest.fixture
def batches(drawn, tmp_path):
    """Images of Cityscapes' names with their outputs; the ground truth below `trees` has a car where an object is."""
    (tmp_path / "trees" / "ulm").mkdir(parents=True)
    for record, output in zip(drawn.records, drawn.outputs):
        name = f"ulm_000000_{record['image_id']:06d}"
        ids = np.full((record["height"], record["width"]), 7, np.uint16)
        for i, annotation in enumerate(record["annotations"]):
            ids[drawn.masks[annotation["id"]]] = 26000 + i
        Image.fromarray(ids).save(tmp_path / "trees" / "ulm" / f"{name}_gtFine_instanceIds.png")
        record.update(file_name=f"ulm/{name}_leftImg8bit.png", output=output)
    return [[record] for record in drawn.records]


@pytest.mark.slow
def test_two_ranks_equal_one(drawn, batches, tmp_path):
    alone = evaluate(tmp_path / "one", drawn.labels, batches, tmp_path / "trees")
    assert alone[0]["segm"]["AP"] > 0
    assert alone[1]["segm"]["AP"] > 0
    torch.multiprocessing.spawn(worker, (tmp_path, drawn.labels, batches, tmp_path / "trees"), nprocs=2)
    for rank in range(2):
        np.testing.assert_equal(pickle.loads((tmp_path / f"rank{rank}").read_bytes()), alone)
    (one,), (two,) = ([*(tmp_path / name).iterdir()] for name in ("one", "two"))
    assert one.name == two.name == "coco_instances_results.json"
    assert one.read_bytes() == two.read_bytes()
