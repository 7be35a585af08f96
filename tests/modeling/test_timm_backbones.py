"""One contract for timm backbones of every kind, and what sets plain vision transformers apart."""

import math

import pytest
import torch

from mask2former.modeling.backbone.simple_pyramid import SimpleFeaturePyramid
from mask2former.modeling.backbone.timm import TimmBackbone
from mask2former.utils.errors import UserError

slow = pytest.mark.slow
NAMES = [
    # CNNs
    "test_resnet",
    pytest.param("dla34", marks=slow),  # its maps are numbered from 1
    pytest.param("resnet18", marks=slow),
    pytest.param("convnext_atto", marks=slow),
    pytest.param("tf_efficientnet_lite0", marks=slow),
    pytest.param("regnetx_002", marks=slow),
    pytest.param("hrnet_w18_small", marks=slow),
    pytest.param("mobilevitv2_050", marks=slow),  # its last map has a cell more than H/32
    # transformers with several strides
    pytest.param("pvt_v2_b0", marks=slow),
    pytest.param("mambaout_femto", marks=slow),  # no transformer, but channels last
    pytest.param("swin_tiny_patch4_window7_224", marks=slow),  # channels last
    pytest.param("swinv2_tiny_window8_256", marks=slow),
    pytest.param("maxvit_nano_rw_256", marks=slow),  # a grid of windows: multiples of 256
    pytest.param("mvitv2_tiny", marks=slow),
    pytest.param("hiera_tiny_224", marks=slow),  # one size: 224
    pytest.param("efficientformer_l1", marks=slow),  # likewise
    # plain ones
    "test_vit",
    pytest.param("test_vit3", marks=slow),  # register tokens
    pytest.param("eva02_tiny_patch14_224", marks=slow),  # rotary positions, 14-pixel patches
    pytest.param("vit_tiny_patch16_224", marks=slow),
    pytest.param("deit_tiny_distilled_patch16_224", marks=slow),
    pytest.param("vit_tiny_r_s16_p8_224", marks=slow),  # a ResNet below, 32-pixel patches
    pytest.param("vit_small_patch14_reg4_dinov2", marks=slow),
    pytest.param("vit_small_patch16_dinov3", marks=slow),
    pytest.param("beit_base_patch16_224", marks=slow),  # one size: 224
    pytest.param("xcit_nano_12_p8_224", marks=slow),  # 8-pixel patches
]
SIZES = ((65, 95), (50, 33))  # odd, and smaller than 64


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", NAMES)
def test_contract(name):
    torch.manual_seed(0)
    backbone = TimmBackbone(name, in_channels=4).double().eval()
    shapes = backbone.output_shape()
    assert {f: s.stride for f, s in shapes.items()} == {"res2": 4, "res3": 8, "res4": 16, "res5": 32}
    with torch.no_grad():
        for height, width in SIZES:
            maps = backbone(noise(1, 4, height, width))
            assert list(maps) == list(shapes)
            for key, m in maps.items():
                stride = shapes[key].stride
                assert m.shape == (1, shapes[key].channels, math.ceil(height / stride), math.ceil(width / stride))
                assert m.dtype == torch.float64 and m.isfinite().all()

    backbone.train()
    # not their sum: a norm makes that constant
    sum((m * noise(*m.shape)).sum() for m in backbone(noise(1, 4, *SIZES[0])).values()).backward()
    assert [n for n, p in backbone.named_parameters() if p.requires_grad and p.grad is None] == []
    backbone.eval()

    torch.manual_seed(1)
    frozen = TimmBackbone(name, in_channels=4, freeze_at=2).double().eval()
    frozen.load_state_dict(backbone.state_dict(), strict=False)  # frozen batch norms do not count batches
    image = noise(1, 4, *SIZES[1])
    before, maps = backbone(image), frozen(image)
    for key, m in maps.items():
        torch.testing.assert_close(m, before[key])
    trained = {n for n, p in frozen.named_parameters() if p.requires_grad}
    assert 0 < len(trained) < len(list(frozen.parameters()))
    sum((m * noise(*m.shape)).sum() for m in maps.values() if m.requires_grad).backward()
    assert {n for n, p in frozen.named_parameters() if p.grad is not None} == trained
    assert maps["res5"].requires_grad
    assert maps["res2"].requires_grad == (frozen.pyramid is not None)  # whose pyramid is always trained


@pytest.mark.parametrize(("name", "square"), [("test_resnet", 32), ("test_vit", 16)])
def test_odd_images_are_padded_and_their_maps_cut(name, square):
    backbone = TimmBackbone(name).double().eval()
    image = noise(1, 3, 3 * square - 5, 4 * square - 15)
    with torch.no_grad():
        maps, padded = backbone(image), backbone(torch.nn.functional.pad(image, (0, 15, 0, 5)))
    for key, m in maps.items():
        torch.testing.assert_close(m, padded[key][..., : m.shape[-2], : m.shape[-1]], rtol=0, atol=0)


@pytest.mark.parametrize(("freeze_at", "blocks"), [(1, 0), (2, 1), (6, 5), (7, 6), (99, 6)])
def test_plain_transformers_freeze_block_by_block(freeze_at, blocks):
    backbone = TimmBackbone("test_vit", freeze_at=freeze_at)
    model = backbone.body.model
    assert not any(p.requires_grad for p in (model.cls_token, model.pos_embed, *model.patch_embed.parameters()))
    frozen = [not any(p.requires_grad for p in block.parameters()) for block in model.blocks]
    assert frozen == [True] * blocks + [False] * (6 - blocks)
    assert all(p.requires_grad == (freeze_at <= 6) for p in model.norm.parameters())
    assert all(p.requires_grad for p in backbone.pyramid.parameters())


def test_maps_that_timm_does_not_number_from_0():
    strides = [spec.stride for spec in TimmBackbone("dla34").output_shape().values()]
    assert strides == [4, 8, 16, 32]


def test_patches_of_14_pixels_cover_16():
    backbone = TimmBackbone("eva02_tiny_patch14_224", out_features=("res4",)).double().eval()
    seen = []
    backbone.body.model.patch_embed.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    image = torch.zeros(1, 3, 96, 160, dtype=torch.float64)
    image[:, :, 32:48, 64:80] = 1  # what cell (2, 4) of stride 16 covers
    with torch.no_grad():
        backbone(image)
    assert seen[0].shape[-2:] == (84, 140)
    patches = seen[0].mean(1).unfold(1, 14, 14).unfold(2, 14, 14).mean((3, 4))[0]  # [6,10]
    assert patches[2, 4] > 0.95 and patches.flatten().topk(2).values[1] < 0.05


def test_a_plain_transformer_hands_on_its_last_norm():
    backbone = TimmBackbone("test_vit").double().eval()
    norm = backbone.body.model.norm
    torch.nn.init.zeros_(norm.weight)
    torch.nn.init.ones_(norm.bias)
    with torch.no_grad():
        a, b = (backbone(noise(1, 3, 64, 64, seed=seed))["res4"] for seed in (0, 1))
    torch.testing.assert_close(a, b)


def test_drop_path_acts_in_training_only():
    torch.manual_seed(0)
    backbone = TimmBackbone("test_vit", drop_path=0.5).double()
    image = noise(4, 3, 64, 64)
    with torch.no_grad():
        assert not torch.equal(backbone(image)["res4"], backbone(image)["res4"])
        backbone.eval()
        assert torch.equal(backbone(image)["res4"], backbone(image)["res4"])
    with pytest.raises(UserError, match=r"no drop_path_rate: leave MODEL\.TIMM\.DROP_PATH_RATE"):
        TimmBackbone("vgg11", drop_path=0.1)


def test_models_of_one_size_are_built_for_another():
    backbone = TimmBackbone("resmlp_12_224", image_size=64, out_features=("res3", "res5")).eval()
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 60, 49))
    assert {n: tuple(m.shape[-2:]) for n, m in maps.items()} == {"res3": (8, 7), "res5": (2, 2)}
    with pytest.raises(UserError, match=r"up to 64x64 pixels, found 60x65: raise MODEL\.TIMM\.IMAGE_SIZE"):
        backbone(torch.zeros(1, 3, 60, 65))


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_pyramid_makes_every_stride_of_one(stride):
    wanted = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}
    pyramid = SimpleFeaturePyramid(24, stride, wanted, out_channels=8).double()
    x = noise(2, 24, 3 * 32 // stride, 5 * 32 // stride)
    maps = pyramid(x)
    assert {n: tuple(m.shape) for n, m in maps.items()} == {n: (2, 8, 96 // s, 160 // s) for n, s in wanted.items()}
    for m in maps.values():  # normed over channels
        torch.testing.assert_close(m.mean(1), torch.zeros_like(m[:, 0]))
        torch.testing.assert_close(m.var(1, correction=0), torch.ones_like(m[:, 0]), rtol=1e-2, atol=0)


def test_what_is_no_backbone_is_told():
    with pytest.raises(UserError, match=r"no such model.*'vit_small_patch14_dinov2'"):
        TimmBackbone("vit_small_patch14_dino2")
    with pytest.raises(UserError, match=r"'resnet18' has no weights 'foo'.*resnet18\.a1_in1k"):
        TimmBackbone("resnet18.foo")
    with pytest.raises(UserError, match=r"has no map .* \(its strides are \[7, 14, 14\]\): it cannot be used"):
        TimmBackbone("sequencer2d_s")
    with pytest.raises(UserError, match=r"OUT_FEATURES is \['res1'\]: expected a choice of"):
        TimmBackbone("test_vit3", out_features=("res1",))
