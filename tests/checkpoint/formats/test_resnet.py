"""ResNets of other programs compute in our backbone what they compute there."""

import pickle

import pytest
import timm
import torch
from torch import nn
from torchvision.models import resnet50

from mask2former.checkpoint import load_weights
from mask2former.checkpoint.formats import find_format
from mask2former.checkpoint.formats.resnet import CAFFE2, DETECTRON2, TIMM_DEEP_STEM, TORCHVISION
from mask2former.modeling.backbone.resnet import ResNet
from mask2former.utils.errors import UserError


def randomized(network):
    """Norms with statistics of their own, so that a mistake shows."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.3, 0.6)
            nn.init.normal_(module.bias, std=0.1)
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    return network.eval()


@torch.no_grad()
def maps(classifier, image):
    """The last map of each stage, in torchvision's and timm's ResNet."""
    x = classifier.maxpool(nn.functional.relu(classifier.bn1(classifier.conv1(image))))
    stages = [classifier.layer1, classifier.layer2, classifier.layer3, classifier.layer4]
    return [x := stage(x) for stage in stages]


def assert_same_features(theirs, ours):
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        for expected, found in zip(maps(theirs, image), ours.eval()(image).values(), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("build", "ours", "form"),
    [
        (resnet50, {}, TORCHVISION),
        (lambda: timm.create_model("resnet50"), {}, TORCHVISION),
        (lambda: timm.create_model("resnet50c"), {"stem": "deeplab"}, TIMM_DEEP_STEM),
    ],
    ids=["torchvision", "timm", "timm, deep stem"],
)
def test_features(build, ours, form, tmp_path):
    classifier, backbone = randomized(build()), ResNet(**ours)
    state = classifier.state_dict()
    torch.save(state, tmp_path / "w.pth")
    report = load_weights(nn.ModuleDict({"backbone": backbone}), str(tmp_path / "w.pth"))
    assert not report.missing and not report.reshaped and report.unexpected == ("fc.weight", "fc.bias")
    assert report.notes == (f"names of {form.title} read as ours",)
    assert_same_features(classifier, backbone)
    back = form.from_ours({f"backbone.{name}": tensor for name, tensor in backbone.state_dict().items()})
    expected = {n: t for n, t in state.items() if not n.startswith("fc.") and not n.endswith("num_batches_tracked")}
    assert back.keys() == expected.keys() and all(torch.equal(back[n], t) for n, t in expected.items())


def caffe2(classifier):
    """The classifier's tensors under the names of detectron2's MSRA files, norms without statistics."""
    branches = {"downsample": "1", "1": "2a", "2": "2b", "3": "2c"}
    result = {}
    for name, module in classifier.named_modules():
        *block, kind = name.split(".")
        if kind in ("0", "1") and block[-1:] == ["downsample"]:
            *block, kind = block
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            is_norm = isinstance(module, nn.BatchNorm2d)
            key = ("res_" if is_norm else "") + "conv1"
            if block:
                branch = branches[kind.removeprefix("conv").removeprefix("bn")]
                key = f"res{int(block[0][5:]) + 1}_{block[1]}_branch{branch}"
            leaves = {"_bn_s": module.weight, "_bn_b": module.bias} if is_norm else {"_w": module.weight}
            result |= {key + leaf: tensor.detach().numpy() for leaf, tensor in leaves.items()}
    return result


def test_caffe2(tmp_path):
    classifier = randomized(resnet50())
    for module in classifier.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.zero_()
            module.running_var.fill_(1 - module.eps)
    arrays = caffe2(classifier)
    arrays |= {f"{name}_momentum": array for name, array in arrays.items()}
    arrays |= {"conv1_b": torch.zeros(64).numpy(), "fc1000_b": torch.zeros(1000).numpy()}
    assert {"conv1_w", "res_conv1_bn_s", "res2_0_branch1_w", "res5_2_branch2c_bn_b"} <= arrays.keys()
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps({"blobs": arrays}, 2))
    backbone = ResNet()
    report = load_weights(nn.ModuleDict({"backbone": backbone}), str(tmp_path / "R-50.pkl"))
    assert not report.missing and report.unexpected == ("conv1_b", "fc1000_b")
    assert CAFFE2.title in report.notes[0]
    assert_same_features(classifier, backbone)


def test_detectron2_backbone_and_back():
    ours = {f"backbone.{name}": tensor for name, tensor in ResNet().state_dict().items()}
    theirs = DETECTRON2.from_ours(ours | {"sem_seg_head.predictor.x": torch.zeros(1)})
    assert {"stem.conv1.norm.running_var", "res4.5.conv2.weight"} <= theirs.keys() and len(theirs) == len(ours)
    assert find_format(theirs) is DETECTRON2
    more = {"stem.fc.weight": torch.zeros(1), "stem.conv1.norm.num_batches_tracked": torch.tensor(0)}
    back = DETECTRON2.to_ours(theirs | more)
    assert back.keys() == {*ours, "stem.fc.weight"}


def test_counters_have_no_place_in_a_detectron2_backbone():
    ours = {f"backbone.{name}": tensor for name, tensor in ResNet(norm="BN").state_dict().items()}
    theirs = DETECTRON2.from_ours(ours)
    assert len(ours) == 318 and len(theirs) == len(DETECTRON2.to_ours(theirs)) == 265


def test_other_networks_are_not_taken_for_one():
    for name in ("resnet18", "resnet50d", "seresnet50", "mobilenetv2_035"):
        with torch.device("meta"):
            assert find_format(timm.create_model(name).state_dict()) is None


def test_blocks_with_more_in_them_are_another_architecture(tmp_path):
    torch.save(timm.create_model("seresnet50").state_dict(), tmp_path / "w.pth")
    with pytest.raises(UserError, match="another architecture"):
        load_weights(nn.ModuleDict({"backbone": ResNet()}), str(tmp_path / "w.pth"))


def test_a_network_that_a_format_cannot_express_is_refused():
    deep = {f"backbone.{name}": tensor for name, tensor in ResNet(stem="deeplab").state_dict().items()}
    with pytest.raises(UserError, match=r"cannot express this backbone.*backbone\.stem\.conv2"):
        TORCHVISION.from_ours(deep)
