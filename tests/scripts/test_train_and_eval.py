"""The command lines that scripts/{train,eval}_{cpu,gpu}.sh make, seen by a stand-in for python."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from mask2former.config import load_cfg
from mask2former.engine.setup import argument_parser

STAND_IN = '#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n'
EVERYTHING = {
    "CONFIG_FILE": "my recipe.yaml",
    "OUTPUT_DIR": "output/with blank",
    "WEIGHTS": "weights.pth",
    "BATCH_SIZE": "4",
    "BASE_LR": "0.0002",
    "MAX_ITER": "30",
    "IMAGE_SIZE": "64",
    "TRAIN_DATASETS": "one two",
    "TEST_DATASETS": "three",
    "NUM_GPUS": "3",
    "RESUME": "1",
}


@pytest.fixture
def command_of(repo_dir: Path, tmp_path: Path):
    """A function of script, environment and arguments that gives the words after `python`."""
    python = tmp_path / "python"
    python.write_text(STAND_IN)
    python.chmod(0o755)

    def run(script: str, environment: dict[str, str], *words: str) -> list[str]:
        clean = {name: value for name, value in os.environ.items() if name not in EVERYTHING}
        path = f"{tmp_path}:{clean['PATH']}"
        done = subprocess.run(
            [repo_dir / "scripts" / script, *words],
            env={**clean, "PATH": path, **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.splitlines()

    return run


@pytest.mark.parametrize(
    ("script", "num_gpus", "device", "evaluates"),
    [
        ("train_cpu.sh", 0, "cpu", False),
        ("train_gpu.sh", 1, "cuda", False),
        ("eval_cpu.sh", 0, "cpu", True),
        ("eval_gpu.sh", 1, "cuda", True),
    ],
)
def test_defaults_are_the_quickstart(command_of, repo_dir, script, num_gpus, device, evaluates):
    program, *words = command_of(script, {})
    args = argument_parser().parse_args(words)
    cfg = load_cfg(args.config_file, args.opts)
    assert Path(program).samefile(repo_dir / "train_net.py")
    assert (args.num_gpus, cfg.MODEL.DEVICE, args.eval_only, args.resume) == (num_gpus, device, evaluates, False)
    assert cfg.MODEL.WEIGHTS == ("output/quickstart_panoptic/model_final.pth" if evaluates else "")
    assert cfg.OUTPUT_DIR == load_cfg(repo_dir / "configs/quickstart/panoptic.yaml").OUTPUT_DIR


@pytest.mark.parametrize("script", ["train_cpu.sh", "train_gpu.sh", "eval_cpu.sh", "eval_gpu.sh"])
def test_every_variable_reaches_its_key(command_of, tmp_path, script):
    (tmp_path / "my recipe.yaml").write_text("SOLVER: {MAX_ITER: 5, BASE_LR: 1.0}\n")
    _, *words = command_of(script, EVERYTHING, "SOLVER.MAX_ITER", "7", "INPUT.MIN_SIZE_TRAIN", "[48, 80]")
    args = argument_parser().parse_args(words)
    assert (args.config_file, args.num_gpus, args.resume) == ("my recipe.yaml", 3, True)
    cfg = load_cfg(tmp_path / args.config_file, args.opts)
    assert (cfg.OUTPUT_DIR, cfg.MODEL.WEIGHTS) == ("output/with blank", "weights.pth")
    assert (cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.BASE_LR) == (4, 0.0002)
    assert (list(cfg.DATASETS.TRAIN), list(cfg.DATASETS.TEST)) == (["one", "two"], ["three"])
    assert (cfg.INPUT.IMAGE_SIZE, list(cfg.INPUT.CROP.SIZE), cfg.INPUT.MIN_SIZE_TEST) == (64, [64, 64], 64)
    assert (cfg.SOLVER.MAX_ITER, list(cfg.INPUT.MIN_SIZE_TRAIN)) == (7, [48, 80])  # arguments have the last word


def test_image_size_scales_as_the_published_recipe(command_of, repo_dir):
    published = load_cfg(repo_dir / "configs/ade20k/semantic-segmentation/maskformer2_R50_bs16_160k.yaml")
    _, *words = command_of("train_gpu.sh", {"IMAGE_SIZE": "512"})
    args = argument_parser().parse_args(words)
    cfg = load_cfg(args.config_file, args.opts)
    names = ("MIN_SIZE_TRAIN", "MAX_SIZE_TRAIN", "MIN_SIZE_TEST", "MAX_SIZE_TEST", "SIZE_DIVISIBILITY")
    assert {n: cfg.INPUT[n] for n in names} == {n: published.INPUT[n] for n in names}
    assert list(cfg.INPUT.CROP.SIZE) == list(published.INPUT.CROP.SIZE)


def test_another_interpreter_and_a_failing_one(command_of, repo_dir):
    assert command_of("train_cpu.sh", {"PYTHON": "echo"})[0].split()[3:5] == [
        "--config-file",
        str(repo_dir / "configs/quickstart/panoptic.yaml"),
    ]
    with pytest.raises(subprocess.CalledProcessError):
        command_of("train_cpu.sh", {"PYTHON": "false"})
