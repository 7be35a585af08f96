"""Two processes report of videos what one process does."""

import pickle

import numpy as np
import pytest
import torch
import torch.distributed as dist

from mask2former.evaluation import VideoInstanceEvaluator, inference_on_dataset
from tests.evaluation.video_drawing import LABELS, draw_videos


class Recall(torch.nn.Module):
    """Predicts what the input holds already."""

    def forward(self, inputs):
        return [record["output"] for record in inputs]


def evaluate(folder, batches):
    return inference_on_dataset(Recall(), batches, VideoInstanceEvaluator(LABELS, folder, save_predictions=True))


def worker(rank, folder, batches):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    results = evaluate(folder / "two", batches[rank::2])
    (folder / f"rank{rank}").write_bytes(pickle.dumps(results))
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_equal_one(tmp_path):
    videos = draw_videos()
    batches = [[{**record, "output": output}] for record, output in zip(videos.records, videos.outputs)]
    alone = evaluate(tmp_path / "one", batches)
    assert alone["segm"]["AP"] > 0
    torch.multiprocessing.spawn(worker, (tmp_path, batches), nprocs=2)
    for rank in range(2):
        np.testing.assert_equal(pickle.loads((tmp_path / f"rank{rank}").read_bytes()), alone)
    one, two = (tmp_path / name / "ytvis" / "results.json" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_the_loop_counts_videos(tmp_path, caplog):
    videos = draw_videos()
    with caplog.at_level("INFO", "mask2former.evaluation.loop"):
        evaluate(tmp_path, [[{**videos.records[2], "output": videos.outputs[2]}]])
    assert "Ran 1 videos in" in caplog.text and "Per video: data" in caplog.text
