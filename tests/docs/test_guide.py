"""The five steps of the README, done as they are written, on a handful of drawn pictures."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

HEADING = "## Your own data in five steps"
PICTURES = 4  # in each split
# what makes a guide for people short enough for a test; appended to the commands that take KEY VALUE pairs of training
SHORT = (
    "SOLVER.MAX_ITER 2 SOLVER.IMS_PER_BATCH 2 INPUT.MIN_SIZE_TRAIN '[64]' INPUT.MIN_SIZE_TEST 64 "
    "INPUT.CROP.SIZE '[64, 64]' INPUT.SIZE_DIVISIBILITY 64 DATALOADER.NUM_WORKERS 0"
)


def draw(layout: str, num_classes: int, ignore_label: int, folder: Path) -> None:
    """Pictures and masks of 64x64 pixels below the names that step 1 shows; every class and ignored pixels occur."""
    root, *lines = layout.split("\n")
    rng = np.random.default_rng(0)
    for image, mask in (line.split() for line in lines if line.strip()):
        for number in range(PICTURES):
            classes = rng.integers(0, num_classes, (8, 8)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
            classes[:2] = ignore_label
            pixels = np.stack([classes * 20, 255 - classes * 20, rng.integers(0, 256, classes.shape)], -1)
            for path, array in ((image, pixels.astype(np.uint8)), (mask, classes)):
                file = folder / root / path
                file = file.with_stem(f"{file.stem}_{number}")
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(file)


def run(command: str, folder: Path, repo: Path) -> str:
    """What a command of the guide prints; the running Python is the one called `python`."""
    python = re.sub(r"^python ", f"'{sys.executable}' ", command, flags=re.MULTILINE)
    env = {**os.environ, "PYTHONPATH": str(repo)}
    done = subprocess.run(python, shell=True, cwd=folder, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture
def clone(tmp_path: Path, repo_dir: Path) -> Path:
    """A folder that looks like the root of a clone, and can be written to."""
    shutil.copytree(repo_dir / "configs", tmp_path / "configs")
    for name in ("train_net.py", "tools", "demo"):
        (tmp_path / name).symlink_to(repo_dir / name)
    return tmp_path


def test_the_five_steps_work(clone: Path, repo_dir: Path, section: Callable, blocks: Callable):
    guide = section("README.md", HEADING)
    found = blocks(guide)
    layout = found[0].text
    (recipe,) = (block.text for block in found if block.language == "yaml")
    commands = [block.text.strip() for block in found if block.language == "bash"]
    assert len(re.findall(r"^\d\. \*\*", guide, re.MULTILINE)) == 5 and len(commands) == 4
    classes = re.search(r"CLASSES: \[(.*)\]", recipe)[1].split(",")
    draw(layout, len(classes), int(re.search(r"IGNORE_LABEL: (\d+)", recipe)[1]), clone)
    (clone / re.search(r"--config-file (\S+)", commands[0])[1]).write_text(recipe)

    printed = [run(f"{c} {SHORT}" if "train_net.py" in c else c, clone, repo_dir) for c in commands]

    assert "errors: 0" in printed[0]
    assert f"NUM_CLASSES is not given: {len(classes)}" in printed[1]
    assert "Results of sem_seg over all classes" in printed[2]
    assert f"{PICTURES} of {PICTURES} images drawn" in printed[3]
    stated = {path.rstrip(".") for path in re.findall(r"output/[\w./]+", guide)}
    assert len(stated) >= 5
    assert [path for path in sorted(stated) if not (clone / path).exists()] == []
    assert len(list((clone / "output/my_data/drawn").iterdir())) == PICTURES
