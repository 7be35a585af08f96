import json
import os
import pickle

import pytest
import safetensors.torch
import torch
from torch import nn

from mask2former.checkpoint import load_weights
from mask2former.checkpoint.convert import convert_names
from mask2former.checkpoint.report import summarize
from mask2former.utils.errors import UserError


class Model(nn.Module):
    """Named as the real one: a backbone, a head, a classifier."""

    def __init__(self, classes=4, width=3, blocks=4):
        super().__init__()
        self.backbone = nn.ModuleDict(
            {f"res{i}": nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width)) for i in range(2, 2 + blocks)}
        )
        self.head = nn.ModuleDict({"mask_embed": nn.Linear(width, width), "class_embed": nn.Linear(width, classes + 1)})
        self.criterion = nn.Module()
        self.criterion.register_buffer("empty_weight", torch.ones(classes + 1))


def saved(model, path, keep=lambda name: True):
    state = {n: t for n, t in model.state_dict().items() if keep(n)}
    torch.save({"model": state}, path)
    return str(path)


def test_everything_matches(tmp_path):
    source, model = Model(), Model()
    report = load_weights(model, saved(source, tmp_path / "w.pth"))
    assert not report.missing and not report.unexpected and not report.reshaped
    assert all(torch.equal(a, b) for a, b in zip(source.state_dict().values(), model.state_dict().values()))


def test_class_head_of_another_size_starts_afresh_and_is_said(tmp_path):
    model = Model(classes=7)
    before = model.head["class_embed"].weight.clone()
    report = load_weights(model, saved(Model(classes=4), tmp_path / "w.pth"))
    assert {r.name for r in report.reshaped} == {
        "head.class_embed.weight",
        "head.class_embed.bias",
        "criterion.empty_weight",
    }
    assert all(r.class_head for r in report.reshaped)
    assert torch.equal(model.head["class_embed"].weight, before)
    assert "another number of classes" in str(report) and "[5, 3] in the file, [8, 3] in the model" in str(report)


def test_other_shapes_are_skipped_and_reported(tmp_path):
    state = Model().state_dict()
    state["head.mask_embed.weight"] = torch.zeros(3, 9)
    torch.save(state, tmp_path / "w.pth")
    report = load_weights(Model(), str(tmp_path / "w.pth"))
    assert [(r.name, r.class_head) for r in report.reshaped] == [("head.mask_embed.weight", False)]
    assert "of another shape, not loaded" in str(report)


def test_backbone_only_file_names_the_missing_head(tmp_path):
    path = saved(Model(), tmp_path / "w.pth", lambda name: name.startswith("backbone."))
    report = load_weights(Model(), path)
    assert set(report.missing) == {n for n in Model().state_dict() if not n.startswith("backbone.")}
    assert "head.* (4 tensors)" in str(report) and "criterion.* (1 tensors)" in str(report)


def test_a_file_whose_blocks_have_more_in_them_loads_nothing(tmp_path):
    state = Model(blocks=8).state_dict()
    scales = {f"backbone.res{i}.gamma": torch.ones(3) for i in range(2, 10)}  # 8 beside 48
    torch.save({**state, **scales}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="another architecture"):
        load_weights(Model(blocks=8), str(tmp_path / "w.pth"))


def test_unexpected_tensors_are_named(tmp_path):
    state = {**Model().state_dict(), "extra.weight": torch.zeros(1)}
    torch.save(state, tmp_path / "w.pth")
    report = load_weights(Model(), str(tmp_path / "w.pth"))
    assert report.unexpected == ("extra.weight",) and "extra.*" in str(report)


@pytest.mark.parametrize(
    "source",
    [nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), Model(width=5), Model(blocks=8), Model(blocks=2)],
    ids=["other names", "other widths", "deeper backbone", "shallower backbone"],
)
def test_checkpoint_of_another_architecture_loads_nothing(source, tmp_path):
    model = Model()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    with pytest.raises(UserError, match=r"(?s)w\.pth is a checkpoint of another architecture.*only in the file.*MODEL"):
        load_weights(model, saved(source, tmp_path / "w.pth"))
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


class Runs:
    def __reduce__(self):
        return os.system, ("touch ran",)


def pickled(state, path):
    path.write_bytes(pickle.dumps({"model": state, "matching_heuristics": True}))


SAVERS = {"zip": torch.save, "safetensors": safetensors.torch.save_file, "pickle": pickled}


@pytest.mark.parametrize(
    ("kind", "spoil"),
    [("zip", "cut off"), ("safetensors", "cut off"), ("pickle", "cut off"), ("zip", "code"), ("pickle", "code")],
)
def test_a_bad_file_loads_nothing(kind, spoil, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, path = Model(), tmp_path / "w.pth"
    before = {n: t.clone() for n, t in model.state_dict().items()}
    SAVERS[kind]({**Model().state_dict(), **({"more": Runs()} if spoil == "code" else {})}, path)
    if spoil == "cut off":
        path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"w\.pth (could not be read|was refused)"):
        load_weights(model, str(path))
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert not (tmp_path / "ran").exists()


def test_values_take_the_model_s_dtype(tmp_path):
    model = Model().double()
    load_weights(model, saved(Model().half(), tmp_path / "w.pth"))
    assert model.head["mask_embed"].weight.dtype == torch.float64


def test_wrapper_prefix_is_removed(tmp_path):
    torch.save({f"module.{n}": t for n, t in Model().state_dict().items()}, tmp_path / "w.pth")
    report = load_weights(Model(), str(tmp_path / "w.pth"))
    assert not report.missing and "module." in report.notes[0]


# ---------------------------------------------------------------- names of other programs


def published_backbone(shared_dir):
    """Tensor names and shapes of the published Mask2Former R50 checkpoint's backbone."""
    reference = json.loads((shared_dir / "reference" / "state_dicts.json").read_text())
    recipes = reference["recipes"]["mask2former"]
    layout = recipes["coco/panoptic-segmentation/maskformer2_R50_bs16_50ep.yaml"]["layout"]
    return {n: s for n, s in reference["layouts"][layout].items() if n.startswith("backbone.")}


def test_detectron2_pkl_names(shared_dir, tmp_path):
    ours = published_backbone(shared_dir)
    arrays = {n.removeprefix("backbone."): torch.zeros(s).numpy() for n, s in ours.items()}
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps({"model": arrays, "matching_heuristics": True}, 2))
    renamed, notes = convert_names(arrays, {*ours, "sem_seg_head.x"})
    assert set(renamed) == set(ours) and "detectron2" in notes[0]


def test_torchvision_names(shared_dir):
    from torchvision.models import resnet50

    ours = published_backbone(shared_dir)
    renamed, notes = convert_names(resnet50().state_dict(), {*ours, "sem_seg_head.x"})
    weights = {n: list(t.shape) for n, t in renamed.items() if not n.endswith("num_batches_tracked")}
    assert {n: s for n, s in weights.items() if n not in ("fc.weight", "fc.bias")} == ours
    assert "torchvision" in notes[0]


def test_our_own_names_stay():
    names = {"backbone.stem.conv1.weight": 1, "sem_seg_head.x": 2}
    assert convert_names(names, set(names)) == (names, ())


def test_summary_sweeps_up_whole_modules_only():
    lines = summarize(["a.b.x", "a.b.y", "a.c.z", "d"], others=["a.c.other", "e"])
    assert lines == ["a.b.* (2 tensors)", "a.c.z", "d"]
