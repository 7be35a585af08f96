import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from mask2former.modeling.backbone.dinat import DiNAT
from mask2former.modeling.backbone.resnet import ResNet
from mask2former.modeling.backbone.swin import SwinTransformer
from mask2former.modeling.backbone.timm import TimmBackbone
from mask2former.utils.errors import UserError

IMAGE = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))

BACKBONES = {
    "resnet50": lambda: ResNet(depth=50),
    "resnet50 deeplab stem": lambda: ResNet(stem="deeplab", stem_channels=128, norm="BN"),
    "resnet50 dilated": lambda: ResNet(dilations=(1, 1, 1, 2), res5_grid=(1, 2, 4), stride_in_1x1=True),
    "resnet50 without res5": lambda: ResNet(out_features=("res3", "res4")),
    "swin tiny": SwinTransformer,
    "swin window 12": lambda: SwinTransformer(depths=(1, 2, 1, 1), window=12, pretrain_size=384),
    "swin two maps": lambda: SwinTransformer(depths=(1, 1, 1, 1), out_features=("res5", "res3")),
    "dinat": lambda: DiNAT(channels=32, depths=(2, 1, 1, 1), num_heads=(1, 2, 4, 8), dilations=([1, 2], [1], [1], [1])),
    "nat two maps": lambda: DiNAT(
        channels=32, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8), out_features=("res5", "res3")
    ),
    "timm cnn": lambda: TimmBackbone("test_resnet"),
    "timm efficientnet": lambda: TimmBackbone("test_efficientnet", norm="FrozenBN"),
    "timm two maps": lambda: TimmBackbone("test_efficientnet", out_features=("res3", "res5")),
    "timm transformer": lambda: TimmBackbone("swinv2_cr_tiny_ns_224", out_features=("res2", "res5")),
}


@pytest.mark.parametrize("name", list(BACKBONES))
def test_maps_are_as_promised(name):
    backbone = BACKBONES[name]().eval()
    image = torch.zeros(1, 3, 224, 224) if "transformer" in name else IMAGE
    with torch.no_grad():
        maps = backbone(image)
    shapes = backbone.output_shape()
    assert list(maps) == list(shapes)
    for key, m in maps.items():
        stride = shapes[key].stride
        assert m.shape == (1, shapes[key].channels, image.shape[2] // stride, image.shape[3] // stride)


def test_a_dilated_stage_keeps_the_resolution():
    assert ResNet(dilations=(1, 1, 2, 2)).output_shape()["res5"].stride == 8


@pytest.mark.parametrize("in_1x1", [True, False])
def test_where_stride_and_dilation_sit(in_1x1):
    backbone = ResNet(stride_in_1x1=in_1x1, dilations=(1, 1, 1, 2), res5_grid=(1, 2, 4))
    first = backbone.res4[0]
    assert (first.conv1.stride, first.conv2.stride) == (((2, 2), (1, 1)) if in_1x1 else ((1, 1), (2, 2)))
    assert first.shortcut.stride == (2, 2)
    assert [block.conv2.dilation for block in backbone.res5] == [(2, 2), (4, 4), (8, 8)]
    assert backbone.res5[0].conv2.stride == (1, 1)


def test_frozen_norms_keep_half_precision():
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        maps = ResNet(norm="FrozenBN")(IMAGE)
    assert {m.dtype for m in maps.values()} == {torch.bfloat16}


def test_maps_come_finest_first_whatever_the_order_asked():
    backbone = TimmBackbone("test_resnet", out_features=("res5", "res2")).eval()
    assert list(backbone.output_shape()) == ["res2", "res5"]
    assert backbone(IMAGE)["res2"].shape[-2:] == (16, 24)


def test_transformers_take_any_size_and_channels_come_first():
    backbone = TimmBackbone("swin_tiny_patch4_window7_224", out_features=("res2", "res3", "res4")).eval()
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 384, 96))  # 384 / 4 is the number of channels of res2
    assert {n: tuple(m.shape[1:]) for n, m in maps.items()} == {
        "res2": (96, 96, 24),
        "res3": (192, 48, 12),
        "res4": (384, 24, 6),
    }


@pytest.mark.parametrize("freeze_at", [0, 1, 2, 5])
def test_resnet_freezes_from_the_stem_up(freeze_at):
    backbone = ResNet(norm="BN", freeze_at=freeze_at)
    for index, name in enumerate(("stem", "res2", "res3", "res4", "res5"), start=1):
        stage = getattr(backbone, name)
        frozen = index <= freeze_at
        assert all(p.requires_grad != frozen for p in stage.parameters())
        kinds = {type(m) for m in stage.modules() if isinstance(m, (nn.BatchNorm2d, FrozenBatchNorm2d))}
        assert all(issubclass(k, FrozenBatchNorm2d) == frozen for k in kinds)


def test_freezing_changes_no_number():
    torch.manual_seed(0)
    trained = ResNet(norm="BN").double().eval()
    for module in trained.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.2)
    with torch.no_grad():
        before = trained(IMAGE.double())["res5"]
        trained._freeze(5)
        torch.testing.assert_close(trained.train()(IMAGE.double())["res5"], before)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
def test_timm_freezes_what_the_stage_depends_on(name):
    backbone = TimmBackbone(name, freeze_at=2)
    assert any(p.requires_grad for p in backbone.parameters())
    maps = backbone(IMAGE)
    assert not maps["res2"].requires_grad
    assert maps["res3"].requires_grad
    before = backbone.eval()(IMAGE)["res2"]
    backbone.train()(IMAGE * 3 + 1)  # frozen norms do not follow the data
    torch.testing.assert_close(backbone.eval()(IMAGE)["res2"], before)


def test_bad_names_are_answered():
    with pytest.raises(UserError, match=r"no such model.*'resnet50'"):
        TimmBackbone("resnet5o")
    with pytest.raises(UserError, match=r"has no map \['res1'"):
        TimmBackbone("convnext_atto", out_features=("res1", "res5"))
    with pytest.raises(UserError, match="expected 3 values"):
        ResNet(res5_grid=(1, 2))
    with pytest.raises(UserError, match=r"DEPTH is 51.*\[50, 101, 152\]"):
        ResNet(depth=51)
    with pytest.raises(UserError, match="STEM_TYPE is 'patch'"):
        ResNet(stem="patch")
    with pytest.raises(UserError, match="unknown norm 'LN'"):
        ResNet(norm="LN")
