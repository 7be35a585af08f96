"""The model in two gloo processes against one process with all images."""

import sys
from pathlib import Path

import pytest
import torch

from mask2former.engine.launch import launch

sys.path.insert(0, str(Path(__file__).parent))
from ranks import losses_and_gradients, rank_main


@pytest.fixture(scope="module")
def cases():
    """Two batches: targets everywhere; a first image without any."""
    from conftest import _make_inputs

    size = ((64, 64), (64, 64))
    return [_make_inputs((3, 2), size), _make_inputs((0, 4), size)]


@pytest.fixture(scope="module")
def results(cases, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    from conftest import tiny_config

    config = folder / "tiny.yaml"
    cfg = tiny_config()
    cfg.MODEL.TIMM.NORM = "FrozenBN"  # batch statistics are of one process by nature
    config.write_text(cfg.dump())
    launch(rank_main, num_gpus=2, args=(str(config), [[[x] for x in batch] for batch in cases], str(folder)))
    ranks = [torch.load(folder / f"rank{r}.pth", weights_only=True) for r in (0, 1)]
    return ranks, [losses_and_gradients(str(config), batch) for batch in cases]


@pytest.mark.parametrize("case", [0, 1], ids=["targets everywhere", "a rank without targets"])
def test_two_processes_equal_one_with_the_doubled_batch(results, case):
    ranks, alone = results
    for rank in ranks:
        assert rank[case]["losses"] == pytest.approx(alone[case]["losses"], rel=1e-5, abs=1e-9)
        for name, gradient in alone[case]["gradients"].items():
            torch.testing.assert_close(rank[case]["gradients"][name], gradient, rtol=1e-5, atol=1e-8)
