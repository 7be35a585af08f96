"""Two processes, one of them without an image, report what one process does."""

import json

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image

from mask2former.evaluation import SemSegEvaluator, inference_on_dataset
from mask2former.structures import LabelSet
from mask2former.visualization import ContactSheet

LABELS = LabelSet(("a", "b", "c"))


class Stripes(torch.nn.Module):
    """Predicts class (row % 3)."""

    def forward(self, inputs):
        rows = (torch.arange(12) % 3)[:, None].expand(12, 20)
        return [{"sem_seg": torch.nn.functional.one_hot(rows, 3).permute(2, 0, 1).float()} for _ in inputs]


def evaluate(folder, batches):
    sheet = ContactSheet(LABELS, folder / "sheet.png", 4)
    evaluator = SemSegEvaluator(LABELS, folder, save_predictions=True)
    results = inference_on_dataset(Stripes(), batches, evaluator, sheet)
    sheet.save()
    return results


def dataset(folder):
    rng = np.random.default_rng(0)
    batches = []
    for i in range(3):
        Image.fromarray(rng.integers(0, 3, (12, 20)).astype(np.uint8)).save(folder / f"mask{i}.png")
        Image.fromarray(np.zeros((12, 20, 3), np.uint8)).save(folder / f"{i}.png")
        batches.append([{"file_name": str(folder / f"{i}.png"), "sem_seg_file_name": str(folder / f"mask{i}.png")}])
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
    for rank in range(2):
        assert json.loads((tmp_path / f"rank{rank}.json").read_text()) == alone
    for name in ("sem_seg_predictions.json", "sheet.png"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
