"""Two processes, one of them without an image, report what one process does."""

import json

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image

from mask2former.evaluation import PanopticEvaluator, SemSegEvaluator, inference_on_dataset
from mask2former.evaluation.panoptic_files import write_panoptic
from mask2former.structures import LabelSet
from mask2former.visualization import ContactSheet

LABELS = LabelSet(("a", "b", "c"), thing_ids=(0,))


class Stripes(torch.nn.Module):
    """Predicts class (row % 3), and each class as a segment."""

    def forward(self, inputs):
        rows = (torch.arange(12) % 3)[:, None].expand(12, 20)
        scores = torch.nn.functional.one_hot(rows, 3).permute(2, 0, 1).float()
        segments = [{"id": k + 1, "category_id": k, "isthing": k == 0} for k in range(3)]
        return [{"sem_seg": scores, "panoptic_seg": (rows.int() + 1, segments)} for _ in inputs]


def evaluate(folder, batches):
    sheet = ContactSheet(LABELS, folder / "sheet.png", 4)
    evaluators = [kind(LABELS, folder, save_predictions=True) for kind in (SemSegEvaluator, PanopticEvaluator)]
    results = inference_on_dataset(Stripes(), batches, evaluators, sheet)
    sheet.save()
    return results


def dataset(folder):
    rng = np.random.default_rng(0)
    batches = []
    for i in range(3):
        truth = (np.arange(12)[:, None] % 3 + (rng.random((12, 20)) < 0.3)).astype(np.uint8) % 3
        Image.fromarray(truth).save(folder / f"mask{i}.png")
        write_panoptic(truth + 1, folder / f"panoptic{i}.png")
        Image.fromarray(np.zeros((12, 20, 3), np.uint8)).save(folder / f"{i}.png")
        record = {
            "file_name": str(folder / f"{i}.png"),
            "image_id": i,
            "sem_seg_file_name": str(folder / f"mask{i}.png"),
            "pan_seg_file_name": str(folder / f"panoptic{i}.png"),
            "segments_info": [{"id": k + 1, "category_id": k, "isthing": k == 0} for k in range(3)],
        }
        batches.append([record])
    return batches


def worker(rank, folder, batches):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    out = folder / "two"
    results = evaluate(out, batches if rank == 1 else [])
    (folder / f"rank{rank}.json").write_text(json.dumps(results))
    dist.destroy_process_group()


@pytest.mark.slow
def test_an_empty_share_takes_part(tmp_path):
    batches = dataset(tmp_path)
    alone = evaluate(tmp_path / "one", batches)
    torch.multiprocessing.spawn(worker, (tmp_path, batches), nprocs=2)
    assert 0 < alone["panoptic_seg"]["PQ"] < 100
    for rank in range(2):
        assert json.loads((tmp_path / f"rank{rank}.json").read_text()) == alone
    for name in ("sem_seg_predictions.json", "predictions.json", "panoptic/2.png", "sheet.png"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
