"""The jobs, through `train_net.main`, with a toy architecture from a user module and a folder of drawn images."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from mask2former.engine.run import _check_synchronized_norms, check_expected_results, flatten_results
from mask2former.engine.setup import argument_parser
from mask2former.utils.errors import UserError

MODULE = """
import torch
from mask2former.modeling import META_ARCH
from torch import nn

if "Toy" not in META_ARCH:

    @META_ARCH.register(name="Toy")
    class Toy(nn.Module):
        def __init__(self, cfg, labels):
            super().__init__()
            self.backbone = nn.Conv2d(3, 4, 1)
            self.head = nn.Conv2d(4, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, 1)

        def forward(self, batch):
            logits = [self.head(self.backbone(s["image"][None] / 255).relu())[0] for s in batch]
            if not self.training:
                resize = nn.functional.interpolate
                return [{"sem_seg": resize(x[None], (s["height"], s["width"]))[0]} for x, s in zip(logits, batch)]
            noise = 1 + 0.01 * torch.randn(())
            pairs = zip(logits, batch)
            entropy = nn.CrossEntropyLoss(ignore_index=255)
            losses = [entropy(x[None], s["sem_seg"][None].long()) for x, s in pairs]
            return {"loss_ce": noise * torch.stack(losses).mean()}
"""

RECIPE = """
IMPORTS: [toy.py]
SEED: 1
DATASETS:
  CUSTOM: {{drawn: {{TYPE: sem_seg_folder, ROOT: {root}, CLASSES: [dark, bright]}}}}
  TRAIN: [drawn_train]
  TEST: [drawn_valid]
MODEL: {{META_ARCHITECTURE: Toy, DEVICE: cpu, SEM_SEG_HEAD: {{NUM_CLASSES: 2}}}}
INPUT: {{FORMAT: RGB, MIN_SIZE_TRAIN: [16, 24], MIN_SIZE_TEST: 16}}
SOLVER: {{IMS_PER_BATCH: 4, MAX_ITER: 10, BASE_LR: 0.1, WARMUP_ITERS: 0, CHECKPOINT_PERIOD: 5, AMP: {{ENABLED: True}}}}
DATALOADER: {{NUM_WORKERS: 0}}
OUTPUT_DIR: {root}/out
"""


@pytest.fixture
def recipe(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("valid", 3)):
        for kind in ("images", "masks"):
            (tmp_path / split / kind).mkdir(parents=True)
        for i in range(count):
            mask = rng.random((16, 20)) > 0.5
            image = np.where(mask[..., None], 200, 50) + rng.integers(0, 40, (16, 20, 3))
            Image.fromarray(image.astype(np.uint8)).save(tmp_path / split / "images" / f"{i}.png")
            Image.fromarray(mask.astype(np.uint8)).save(tmp_path / split / "masks" / f"{i}.png")
    (tmp_path / "toy.py").write_text(MODULE)
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(root=tmp_path))
    return path


def run(repo_dir, recipe, *words):
    import importlib.util

    spec = importlib.util.spec_from_file_location("train_net", repo_dir / "train_net.py")
    train_net = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(train_net)
    train_net.main(argument_parser().parse_args(["--config-file", str(recipe), "--num-gpus", "0", *words]))


def load(path):
    return torch.load(path, weights_only=True)


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


def test_training_fills_the_output_folder(repo_dir, recipe, tmp_path, capsys):
    run(repo_dir, recipe)
    out = tmp_path / "out"
    names = {p.name for p in out.iterdir()}
    assert names >= {"config.yaml", "log.txt", "metrics.json", "model_0000004.pth", "model_0000009.pth"}
    assert names >= {"model_final.pth", "last_checkpoint", "inference"}
    assert {p.name for p in (out / "inference").iterdir()} == {"results.json", "contact_sheet.png"}
    lines = metrics(out)
    assert lines[0]["iteration"] == 9 and {"loss_ce", "total_loss", "lr", "time"} <= set(lines[0])
    results = json.loads((out / "inference" / "results.json").read_text())
    assert lines[-1]["sem_seg/mIoU"] == results["sem_seg"]["mIoU"]
    log = (out / "log.txt").read_text()
    assert "eta: " in log and "mIoU" in log and "in float32 instead" in log
    console = capsys.readouterr().out
    for listing in ("environment:", "config:", "model:\nToy("):
        assert f" {listing}" in log and f" {listing}" not in console
    assert "eta: " in console

    checkpoint = load(out / "model_final.pth")
    assert checkpoint["labels"]["names"] == ["dark", "bright"] and checkpoint["labels"]["ignore_label"] == 255
    assert checkpoint["normalization"]["format"] == "RGB" and len(checkpoint["normalization"]["mean"]) == 3
    assert checkpoint["iteration"] == 9 and "SEM_SEG_HEAD" in checkpoint["config"]
    assert {"optimizer", "scheduler", "scaler", "loader", "rng", "versions"} <= set(checkpoint)


def test_resume_is_exact(repo_dir, recipe, tmp_path):
    run(repo_dir, recipe)
    run(repo_dir, recipe, "OUTPUT_DIR", str(tmp_path / "b"))
    out = tmp_path / "b"
    (out / "last_checkpoint").write_text("model_0000004.pth")
    (out / "model_final.pth").unlink()
    run(repo_dir, recipe, "--resume", "OUTPUT_DIR", str(out))
    a, b = load(tmp_path / "out" / "model_final.pth"), load(out / "model_final.pth")
    assert all(torch.equal(t, b["model"][n]) for n, t in a["model"].items())
    for i, state in a["optimizer"]["state"].items():
        assert all(torch.equal(t, b["optimizer"]["state"][i][n]) for n, t in state.items())
    assert a["loader"] == b["loader"]


def test_evaluation_only(repo_dir, recipe, tmp_path):
    run(repo_dir, recipe)
    lines = len(metrics(tmp_path / "out"))
    trained = json.loads((tmp_path / "out" / "inference" / "results.json").read_text())
    run(repo_dir, recipe, "--eval-only", "--resume")
    assert metrics(tmp_path / "out")[lines:] == [metrics(tmp_path / "out")[-1]]
    weights, other = str(tmp_path / "out" / "model_final.pth"), str(tmp_path / "other")
    expected = f"[[sem_seg, mIoU, {trained['sem_seg']['mIoU']}, 0.01]]"
    run(
        repo_dir,
        recipe,
        "--eval-only",
        "MODEL.WEIGHTS",
        weights,
        "OUTPUT_DIR",
        other,
        "TEST.EXPECTED_RESULTS",
        expected,
    )
    assert json.loads((tmp_path / "other" / "inference" / "results.json").read_text()) == trained


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--eval-only",), "MODEL.WEIGHTS"),
        (("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "3"), "NUM_CLASSES"),
        (("MODEL.WEIGHTS", "nowhere/w.pth"), "nowhere"),
        (("SOLVER.OPTIMIZER", "LION"), "SOLVER.OPTIMIZER"),
        (("DATASETS.TEST", "[drawn_tset]"), "drawn_tset"),
        (("TEST.AUG.ENABLED", "True", "MODEL.MASK_FORMER.TEST.PANOPTIC_ON", "True"), "averages semantic results only"),
        (("TEST.EXPECTED_RESULTS", "[[drawn_valid, sem_seg, mIoU, 50, 1]]"), r"expected \[task, metric"),
        (("SOLVER.CLIP_GRADIENTS", "{ENABLED: True, CLIP_VALUE: 0}"), "CLIP_VALUE is 0.0"),
        (("OUTPUT_DIR", "{root}/toy.py"), "OUTPUT_DIR is .*toy.py'.*Set it to another folder"),
        (("MODEL.DEVICE", "gpu"), "MODEL.DEVICE is 'gpu'.*Set it to cuda or cpu"),
    ],
)
def test_mistakes_are_told_before_training(repo_dir, recipe, tmp_path, words, message):
    with pytest.raises(UserError, match=message):
        run(repo_dir, recipe, *(word.replace("{root}", str(tmp_path)) for word in words))
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_resume_with_other_classes_is_refused(repo_dir, recipe):
    run(repo_dir, recipe, "SOLVER.MAX_ITER", "1")
    with pytest.raises(UserError, match="classes are not those"):
        run(repo_dir, recipe, "--resume", "DATASETS.CUSTOM", "{drawn: {CLASSES: [dark, light]}}")


def test_evaluation_on_other_classes_is_refused(repo_dir, recipe, tmp_path):
    run(repo_dir, recipe, "SOLVER.MAX_ITER", "1")
    weights = str(tmp_path / "out" / "model_final.pth")
    changed = "{drawn: {CLASSES: [dark, light]}}"
    with pytest.raises(UserError, match=r"only in the checkpoint: \['bright'\]; only in the data set: \['light'\]"):
        run(repo_dir, recipe, "--eval-only", "MODEL.WEIGHTS", weights, "DATASETS.CUSTOM", changed)


def test_augmented_evaluation_comes_second(repo_dir, recipe, tmp_path):
    run(repo_dir, recipe, "SOLVER.MAX_ITER", "3", "TEST.AUG", "{ENABLED: True, MIN_SIZES: [16], MAX_SIZE: 64}")
    out = tmp_path / "out"
    plain, augmented = (json.loads((out / f / "results.json").read_text()) for f in ("inference", "inference_TTA"))
    assert plain["sem_seg"].keys() == augmented["sem_seg"].keys()
    # the toy looks at each pixel alone, so one size and its mirror image change nothing
    assert augmented["sem_seg"]["mIoU"] == pytest.approx(plain["sem_seg"]["mIoU"])
    assert metrics(out)[-1]["sem_seg_TTA/mIoU"] == augmented["sem_seg"]["mIoU"]


def test_the_number_of_classes_comes_from_the_data_set(repo_dir, recipe, tmp_path):
    text = recipe.read_text().replace(
        "MODEL: {META_ARCHITECTURE: Toy, DEVICE: cpu, SEM_SEG_HEAD: {NUM_CLASSES: 2}}",
        "MODEL: {META_ARCHITECTURE: Toy, DEVICE: cpu}",
    )
    recipe.write_text(text)
    run(repo_dir, recipe, "SOLVER.MAX_ITER", "1")
    assert "NUM_CLASSES: 2" in (tmp_path / "out" / "config.yaml").read_text()


def test_resume_without_a_checkpoint_says_that_it_starts_anew(repo_dir, recipe, capsys):
    run(repo_dir, recipe, "--resume", "SOLVER.MAX_ITER", "1")
    assert "holds no checkpoint yet" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "key"), [("backbone", "RESNETS"), ("head", "SEM_SEG_HEAD")])
def test_sync_bn_between_processes_on_the_cpu_is_refused(tmp_path, name, key):
    model = torch.nn.ModuleDict({name: torch.nn.Sequential(torch.nn.SyncBatchNorm(2))})
    _check_synchronized_norms(model, "cpu")  # alone it is an ordinary BN
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        with pytest.raises(UserError, match=rf"MODEL\.{key}\.NORM is SyncBN .*{name}\.0.*--num-gpus 0"):
            _check_synchronized_norms(model, "cpu")
        _check_synchronized_norms(model, "cuda")
    finally:
        torch.distributed.destroy_process_group()


def test_non_finite_loss_stops_the_run(repo_dir, recipe, tmp_path):
    with pytest.raises(UserError, match="loss_ce"):
        run(repo_dir, recipe, "SOLVER.BASE_LR", "1e30", "SOLVER.CHECKPOINT_PERIOD", "1")
    for path in (tmp_path / "out").glob("*.pth"):
        assert all(t.isfinite().all() for t in load(path)["model"].values())


def test_error_of_the_program_is_one_line(repo_dir, recipe):
    command = [sys.executable, str(repo_dir / "train_net.py"), "--config-file", str(recipe)]
    done = subprocess.run([*command, "SOLVER.MAX_ITERS", "3"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: ") and "SOLVER.MAX_ITER" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("processes", [0, 2])
def test_interrupted_run_is_saved_and_goes_on(repo_dir, recipe, tmp_path, processes):
    program = [sys.executable, str(repo_dir / "train_net.py"), "--config-file", str(recipe)]
    program += ["--num-gpus", str(processes)]
    keys = ["SOLVER.CHECKPOINT_PERIOD", "100000", "SOLVER.MAX_ITER"]
    process = subprocess.Popen([*program, *keys, "100000"], stdout=subprocess.PIPE, text=True, start_new_session=True)
    for line in process.stdout:
        if "iter: " in line:
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes
            break
    rest = process.communicate(timeout=120)[0]
    assert process.returncode == 130 and "--resume goes on" in rest
    done = load(tmp_path / "out" / (tmp_path / "out" / "last_checkpoint").read_text())["iteration"] + 1
    subprocess.run([*program, "--resume", *keys, str(done + 2)], check=True, timeout=240)
    assert load(tmp_path / "out" / "model_final.pth")["iteration"] == done + 1


def test_flat_names():
    one = {"a": {"sem_seg": {"mIoU": 1.0, "IoU-x": 2.0}}}
    assert flatten_results(one) == {"sem_seg/mIoU": 1.0, "sem_seg/IoU-x": 2.0}
    assert set(flatten_results({**one, "b": {"sem_seg": {"mIoU": 3.0}}})) >= {"a/sem_seg/mIoU", "b/sem_seg/mIoU"}


def test_expected_results():
    results = {"a": {"sem_seg": {"mIoU": 50.0}}}
    check_expected_results([["sem_seg", "mIoU", 50.2, 0.5]], results)
    with pytest.raises(UserError, match=r"sem_seg/mIoU on a is 50\.0, expected 60"):
        check_expected_results([["sem_seg", "mIoU", 60, 0.5]], results)
    with pytest.raises(UserError, match="expected 60"):
        check_expected_results([["bbox", "AP", 60, 0.5]], results)
