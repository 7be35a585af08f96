"""The model in two gloo processes against one process with all images."""

import sys
from pathlib import Path

import pytest
import torch

from mask2former.engine.launch import launch

sys.path.insert(0, str(Path(__file__).parent))
from ranks import losses_and_gradients, rank_main

MODELS = {
    "points": {},
    "whole masks": {"MODEL.MASK_FORMER.TRAIN_NUM_POINTS": 0, "MODEL.MASK_FORMER.MASK_LOSS": "focal"},
    "pixels": {
        "MODEL.META_ARCHITECTURE": "SemanticSegmentor",
        "MODEL.SEM_SEG_HEAD.NAME": "PerPixelBaselineHead",
        "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "BasePixelDecoder",
        "MODEL.MASK_FORMER.TEST.PANOPTIC_ON": False,
        "MODEL.MASK_FORMER.TEST.INSTANCE_ON": False,
    },
}


@pytest.fixture(scope="module")
def cases():
    """Two batches: targets everywhere; a first image without any, and without labels of pixels."""
    from tests.modeling.conftest import _make_inputs

    size = ((64, 64), (64, 64))
    batches = [_make_inputs((3, 2), size), _make_inputs((0, 4), size)]
    for batch, unlabelled in zip(batches, (10, 64)):
        for x in batch:
            x["sem_seg"] = torch.arange(64).expand(64, 64) % 5
        batch[0]["sem_seg"] = batch[0]["sem_seg"].index_fill(0, torch.arange(unlabelled), 255)
    return batches


@pytest.fixture(scope="module")
def results(cases, tmp_path_factory):
    """Of both ranks and of one process: by model, one entry per case."""
    folder = tmp_path_factory.mktemp("ranks")
    from tests.modeling.conftest import tiny_config

    configs = {}
    for name, keys in MODELS.items():
        cfg = tiny_config()
        cfg.merge_from_list([part for pair in keys.items() for part in pair])
        cfg.MODEL.TIMM.NORM = "FrozenBN"  # batch statistics are of one process by nature
        path = folder / f"{len(configs)}.yaml"
        path.write_text(cfg.dump())
        configs[name] = str(path)
    launch(rank_main, num_gpus=2, args=(configs, [[[x] for x in batch] for batch in cases], str(folder)))
    ranks = [torch.load(folder / f"rank{r}.pth", weights_only=True) for r in (0, 1)]
    return ranks, {name: [losses_and_gradients(path, batch) for batch in cases] for name, path in configs.items()}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("case", [0, 1], ids=["targets everywhere", "a rank without targets"])
def test_two_processes_equal_one_with_the_doubled_batch(results, name, case):
    ranks, alone = results[0], results[1][name][case]
    for rank in ranks:
        assert rank[name][case]["losses"] == pytest.approx(alone["losses"], rel=1e-5, abs=1e-9)
        for parameter, gradient in alone["gradients"].items():
            torch.testing.assert_close(rank[name][case]["gradients"][parameter], gradient, rtol=1e-5, atol=1e-8)
