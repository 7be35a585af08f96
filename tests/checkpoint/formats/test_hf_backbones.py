"""Hugging Face's ResNet and Swin compute in our backbones what they compute there."""

import pytest
import torch
from torch import nn

from mask2former.checkpoint import load_weights
from mask2former.checkpoint.formats import find_format
from mask2former.checkpoint.formats.hf_backbones import HF_RESNET, HF_SWIN
from mask2former.modeling.backbone.resnet import ResNet
from mask2former.modeling.backbone.swin import SwinTransformer
from mask2former.utils.errors import UserError

transformers = pytest.importorskip("transformers")

DEPTHS, HEADS = [2, 2, 4, 2], [1, 2, 4, 8]
STAGES = ["stage1", "stage2", "stage3", "stage4"]
RESNET = {"embedding_size": 8, "hidden_sizes": [16, 32, 64, 128], "out_features": STAGES}
SWIN = {"embed_dim": 16, "depths": DEPTHS, "num_heads": HEADS, "window_size": 2, "out_features": STAGES}


def our_resnet():
    return ResNet(stem_channels=8, res2_channels=16, width_per_group=4).eval()


def our_swin():
    return SwinTransformer(channels=16, depths=DEPTHS, num_heads=HEADS, window=2).eval()


def randomized(network):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2, generator=generator)
            elif value.is_floating_point() and (value.ndim == 1 or "bias_table" in name):
                value.add_(torch.randn(value.shape, generator=generator), alpha=0.2)
    return network.eval()


KINDS = {
    "resnet": (lambda: transformers.ResNetBackbone(transformers.ResNetConfig(**RESNET)), our_resnet, HF_RESNET),
    "swin": (lambda: transformers.SwinBackbone(transformers.SwinConfig(**SWIN)), our_swin, HF_SWIN),
}


@pytest.mark.parametrize("as_file", [False, True], ids=["modules", "file"])
@pytest.mark.parametrize("kind", KINDS)
def test_backbones_alone(kind, as_file, tmp_path):
    build, build_ours, form = KINDS[kind]
    theirs, backbone = randomized(build()), build_ours()
    source = tmp_path / "w.pth"
    torch.save(theirs.state_dict(), source)
    if as_file:
        theirs.save_pretrained(tmp_path / "folder")
        source = tmp_path / "folder"
    report = load_weights(nn.ModuleDict({"backbone": backbone}), str(source))
    assert not report.missing and not report.reshaped
    assert {name.rpartition(".")[0] for name in report.unexpected} <= {"swin.layernorm"}  # nothing uses it there
    assert report.notes == (f"names of {form.title} read as ours",)
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected, found = theirs(image).feature_maps, backbone(image).values()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("build", "build_ours", "left_over", "missing"),
    [
        (
            lambda: transformers.ResNetForImageClassification(transformers.ResNetConfig(**RESNET)),
            our_resnet,
            {"classifier.1"},
            set(),
        ),
        (
            lambda: transformers.SwinForImageClassification(transformers.SwinConfig(**SWIN)),
            our_swin,
            {"classifier", "swin.layernorm"},
            {f"backbone.norm{stage}" for stage in range(4)},
        ),
    ],
    ids=["resnet", "swin"],
)
def test_classifiers(build, build_ours, left_over, missing, tmp_path):
    build().save_pretrained(tmp_path)
    report = load_weights(nn.ModuleDict({"backbone": build_ours()}), str(tmp_path))
    assert {name.rpartition(".")[0] for name in report.unexpected} == left_over
    assert {name.rpartition(".")[0] for name in report.missing} == missing and not report.reshaped


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back(kind):
    """Without what a classifier of theirs has no place for: our norms, one per map."""
    _, build_ours, form = KINDS[kind]
    weights = {f"backbone.{name}": value for name, value in randomized(build_ours()).state_dict().items()}
    theirs = form.from_ours(weights)
    assert find_format(theirs) is form
    back = form.to_ours(theirs)
    assert {name for name in weights if not name.startswith("backbone.norm")} == set(back)
    assert all(torch.equal(value, weights[name]) for name, value in back.items())


def test_another_architecture_is_refused():
    with pytest.raises(UserError, match="Hugging Face's Swin cannot express this backbone"):
        HF_SWIN.from_ours({f"backbone.{name}": value for name, value in our_resnet().state_dict().items()})
