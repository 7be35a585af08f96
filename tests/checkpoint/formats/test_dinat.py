import pytest
import torch
from torch import nn

from mask2former.checkpoint import load_weights
from mask2former.checkpoint.formats.dinat import DINAT
from mask2former.config import get_cfg
from mask2former.modeling.backbone.build import build_backbone
from mask2former.modeling.backbone.dinat import DiNAT

SIZES = {"channels": 8, "depths": (1, 2, 1, 1), "num_heads": (1, 2, 4, 8)}


def classifier(kernel=3, channels=8, depths=SIZES["depths"], mlp_ratio=2, layer_scale=False):
    """Names and shapes of the authors' classifier (Neighborhood-Attention-Transformer, classification/nat.py)."""
    shapes = {
        "patch_embed.proj.0.weight": (channels // 2, 3, 3, 3),
        "patch_embed.proj.0.bias": (channels // 2,),
        "patch_embed.proj.1.weight": (channels, channels // 2, 3, 3),
        "patch_embed.proj.1.bias": (channels,),
        "patch_embed.norm.weight": (channels,),
        "patch_embed.norm.bias": (channels,),
    }
    for i, depth in enumerate(depths):
        c, heads, edge = channels * 2**i, 2**i, 2 * kernel - 1
        for j in range(depth):
            linears = {"attn.qkv": (3 * c, c), "attn.proj": (c, c)}
            linears |= {"mlp.fc1": (mlp_ratio * c, c), "mlp.fc2": (c, mlp_ratio * c)}
            block = {"norm1.weight": (c,), "norm1.bias": (c,), "norm2.weight": (c,), "norm2.bias": (c,)}
            block |= {f"{name}.weight": shape for name, shape in linears.items()}
            block |= {f"{name}.bias": shape[:1] for name, shape in linears.items()}
            block |= {"attn.rpb": (heads, edge, edge)}
            block |= {"gamma1": (c,), "gamma2": (c,)} if layer_scale else {}
            shapes |= {f"levels.{i}.blocks.{j}.{name}": shape for name, shape in block.items()}
        if i < 3:
            shapes |= {f"levels.{i}.downsample.reduction.weight": (2 * c, c, 3, 3)}
            shapes |= {f"levels.{i}.downsample.norm.{leaf}": (2 * c,) for leaf in ("weight", "bias")}
    shapes |= {"norm.weight": (8 * channels,), "norm.bias": (8 * channels,)}
    shapes |= {"head.weight": (10, 8 * channels), "head.bias": (10,)}
    return {name: torch.rand(shape) for name, shape in shapes.items()}


def load(state, backbone, tmp_path):
    torch.save(state, tmp_path / "w.pth")
    return load_weights(nn.ModuleDict({"backbone": backbone}), str(tmp_path / "w.pth"))


@pytest.mark.parametrize("layer_scale", [None, 1e-5])
def test_everything_but_the_norms_of_the_maps_is_found_and_comes_back(layer_scale, tmp_path):
    backbone = DiNAT(kernel_size=3, layer_scale=layer_scale, **SIZES)
    state = classifier(layer_scale=layer_scale is not None)
    report = load(state, backbone, tmp_path)
    assert set(report.missing) == {f"backbone.norm{i}.{leaf}" for i in range(4) for leaf in ("weight", "bias")}
    assert report.unexpected == ("norm.weight", "norm.bias", "head.weight", "head.bias") and not report.reshaped
    assert report.notes == (f"names of {DINAT.title} read as ours",)
    back = DINAT.from_ours({f"backbone.{name}": tensor for name, tensor in backbone.state_dict().items()})
    assert back.keys() == state.keys() - set(report.unexpected)
    assert all(torch.equal(t, state[n]) for n, t in back.items())


def test_layer_scale_is_a_key():
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = "D2DiNAT"
    cfg.MODEL.DINAT.EMBED_DIM, cfg.MODEL.DINAT.DEPTHS, cfg.MODEL.DINAT.NUM_HEADS = 8, [1, 1, 1, 1], [1, 2, 4, 8]
    assert build_backbone(cfg).levels[0].blocks[0].gamma1 is None
    cfg.MODEL.DINAT.LAYER_SCALE = 1e-5
    block = build_backbone(cfg).levels[3].blocks[0]
    assert torch.equal(block.gamma2, torch.full((64,), 1e-5))


def test_tables_of_another_kernel_are_resized(tmp_path):
    backbone, state = DiNAT(kernel_size=7, **SIZES), classifier(kernel=5)
    line = torch.linspace(-1, 1, 19)[1::2]  # a plane over the 9x9 offsets, seen at their centres
    state["levels.1.blocks.0.attn.rpb"] = torch.stack([line[:, None] + 2 * line, torch.full((9, 9), 3.0)])
    report = load(state, backbone, tmp_path)
    assert len(report.adapted) == 5 and not report.reshaped and "to the model's kernel" in str(report)
    plane, constant = backbone.levels[1].blocks[0].attn.rpb.detach()
    torch.testing.assert_close(constant, torch.full((13, 13), 3.0))
    line = torch.linspace(-1, 1, 27)[1::2]
    inner = slice(3, -3)  # bicubic weights see beyond the border
    torch.testing.assert_close(plane[inner, inner], (line[:, None] + 2 * line)[inner, inner], atol=0.06, rtol=0)
