import pytest
import torch

from mask2former.config import get_cfg, load_cfg
from mask2former.engine.amp import choose_amp_dtype
from mask2former.engine.setup import argument_parser, default_setup, rescale_for_ranks
from mask2former.utils.errors import UserError


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("IMPORTS: [mine.py]\nSEED: 3\nSOLVER: {MAX_ITER: 7}\n")
    (tmp_path / "mine.py").write_text(
        "from mask2former.data import DatasetCatalog\nDatasetCatalog.register('setup_' + __name__, list)\n"
    )
    return path


def setup(recipe, *words):
    out = str(recipe.parent / "out")
    return default_setup(argument_parser().parse_args(["--config-file", str(recipe), *words, "OUTPUT_DIR", out]))


def test_flags_are_detectron2_s():
    words = "--config-file a.yaml --resume --eval-only --num-gpus 2 --num-machines 3 --machine-rank 1"
    args = argument_parser().parse_args(
        [*words.split(), "--dist-url", "tcp://h:1", "SEED", "-1", "SOLVER.MAX_ITER", "9"]
    )
    assert (args.config_file, args.resume, args.eval_only) == ("a.yaml", True, True)
    assert (args.num_gpus, args.num_machines, args.machine_rank, args.dist_url) == (2, 3, 1, "tcp://h:1")
    assert args.opts == ["SEED", "-1", "SOLVER.MAX_ITER", "9"]


def test_setup_writes_config_and_log_seeds_and_imports(recipe):
    from mask2former.data import DatasetCatalog

    cfg = setup(recipe, "--num-gpus", "0", "SOLVER.MAX_ITER", "9")
    first = torch.rand(1)
    out = recipe.parent / "out"
    assert cfg.is_frozen() and cfg.SOLVER.MAX_ITER == 9 and cfg.MODEL.DEVICE == "cpu"
    assert any(name.startswith("setup_") for name in DatasetCatalog)
    assert load_cfg(out / "config.yaml").dump() == cfg.dump()
    log = (out / "log.txt").read_text()
    assert "running on the CPU" in log and "environment" in log and "command:" in log
    setup(recipe, "--num-gpus", "0")
    assert torch.equal(torch.rand(1), first)


def test_drawn_seed_is_kept_in_the_config(recipe):
    assert setup(recipe, "SEED", "-1").SEED >= 0


def test_evaluation_leaves_the_config_of_the_training(recipe):
    setup(recipe, "SOLVER.MAX_ITER", "9")
    setup(recipe, "--eval-only", "SOLVER.MAX_ITER", "11")
    assert load_cfg(recipe.parent / "out" / "config.yaml").SOLVER.MAX_ITER == 9


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("SOLVER.MAX_ITER", "9", "--resume"), "--resume comes after KEY VALUE"),
        (("FLOAT32_PRECISION", "double"), "FLOAT32_PRECISION is 'double'"),
        (("SOLVER.MAX_ITERS", "9"), "Did you mean 'SOLVER.MAX_ITER'"),
    ],
)
def test_mistakes(recipe, words, message):
    with pytest.raises(UserError, match=message):
        setup(recipe, *words)


def test_rescaling_keeps_epochs_and_images_per_rank():
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.REFERENCE_WORLD_SIZE", "8", "SOLVER.IMS_PER_BATCH", "16", "SOLVER.MAX_ITER", "1000"])
    cfg.merge_from_list(["SOLVER.STEPS", "[600]", "SOLVER.BASE_LR", "0.01", "SOLVER.WARMUP_ITERS", "10"])
    rescale_for_ranks(cfg, 2)
    solver = cfg.SOLVER
    assert (solver.IMS_PER_BATCH, solver.MAX_ITER, solver.STEPS, solver.WARMUP_ITERS) == (4, 4000, [2400], 40)
    assert solver.BASE_LR == pytest.approx(0.0025)
    before = cfg.dump()
    rescale_for_ranks(cfg, 2)
    assert cfg.dump() == before
    cfg.SOLVER.REFERENCE_WORLD_SIZE = 8
    with pytest.raises(UserError, match="no whole number"):
        rescale_for_ranks(cfg, 1)


def test_amp_on_the_cpu(caplog, monkeypatch):
    import logging

    monkeypatch.setattr(logging.getLogger("mask2former"), "propagate", True)  # setup_logger cuts it off from pytest
    cpu = torch.device("cpu")
    assert choose_amp_dtype(False, "float16", cpu) is None and not caplog.records
    assert choose_amp_dtype(True, "bfloat16", cpu) is torch.bfloat16
    assert choose_amp_dtype(True, "float16", cpu) is None
    assert "in float32 instead" in caplog.text
    with pytest.raises(UserError, match="Did you mean 'bfloat16'"):
        choose_amp_dtype(True, "bfloat", cpu)
