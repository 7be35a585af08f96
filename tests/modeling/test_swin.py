"""Swin against its definition, token by token; sizes, recomputation, and the recipe's keys."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mask2former.config import get_cfg
from mask2former.modeling import build_model
from mask2former.modeling.backbone.build import build_backbone
from mask2former.modeling.backbone.swin import PatchMerging, SwinBlock, SwinTransformer, WindowAttention
from mask2former.modeling.layers.recompute import recompute_blocks
from mask2former.utils.errors import UserError

TINY = {"channels": 8, "depths": (2, 2, 2, 1), "num_heads": (1, 2, 2, 4), "window": 3, "mlp_ratio": 2.0}


def draw(module):
    """Random float64 weights for every parameter, so that no term of the sum is zero or one."""
    g = torch.Generator().manual_seed(0)
    for parameter in module.double().parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=g, dtype=torch.float64) * 0.5)
    return module


def attention_by_loops(block: SwinBlock, x: Tensor) -> Tensor:
    """The paper's sec. 3.2 for one normalised map [H,W,C]: which tokens share a window is decided pair by pair.

    The map is extended by zeros to whole windows and cut at lines that lie ``shift`` beyond those of regular windows;
    what the cut leaves at the borders are smaller windows.
    """
    attn, window, shift = block.attn, block.window, block.shift
    heads, channels = attn.num_heads, x.shape[-1]
    height, width = (math.ceil(n / window) * window for n in x.shape[:2])
    extended = x.new_zeros(height, width, channels)
    extended[: x.shape[0], : x.shape[1]] = x
    queries, keys, values = attn.qkv(extended).unflatten(-1, (3, heads, -1)).unbind(2)  # [H,W,G,D]
    cells = [(i, j) for i in range(height) for j in range(width)]
    out = torch.zeros_like(extended)
    for i, j in cells:
        # whole windows of a shifted grid, or the smaller pieces at its ends
        mates = [
            (a, b)
            for a, b in cells
            if (a + window - shift) // window == (i + window - shift) // window
            and (b + window - shift) // window == (j + window - shift) // window
        ]
        mixed = []
        for head in range(heads):
            logits = []
            for a, b in mates:
                row = (i - a + window - 1) * (2 * window - 1) + (j - b + window - 1)
                dot = (queries[i, j, head] * keys[a, b, head]).sum() * attn.scale
                logits.append(dot + attn.relative_position_bias_table[row, head])
            weights = torch.stack(logits).softmax(0)
            mixed.append(sum(w * values[a, b, head] for w, (a, b) in zip(weights, mates)))
        out[i, j] = attn.proj(torch.cat(mixed))
    return out[: x.shape[0], : x.shape[1]]


@pytest.mark.parametrize(("window", "shift"), [(3, 0), (3, 1), (4, 2)])
@pytest.mark.parametrize("size", [(6, 3), (5, 7), (2, 2), (1, 4)], ids=str)
def test_a_block_is_what_the_paper_says(size, window, shift):
    block = draw(
        SwinBlock(
            8,
            window=window,
            shift=shift,
            mlp_ratio=2.0,
            drop=0.0,
            drop_path=0.0,
            num_heads=2,
            qkv_bias=True,
            qk_scale=None,
            attn_drop=0.0,
        )
    )
    x = torch.randn(2, *size, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        attended = torch.stack([attention_by_loops(block, block.norm1(one)) for one in x])
        hidden = x + attended
        expected = hidden + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(hidden))))
        torch.testing.assert_close(block(x), expected)


def test_shifted_windows_pass_gradcheck():
    attn = draw(
        WindowAttention(4, num_heads=2, window=2, shift=1, qkv_bias=True, qk_scale=0.3, attn_drop=0.0, drop=0.0)
    )
    x = torch.randn(1, 2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    table = attn.relative_position_bias_table
    assert torch.autograd.gradcheck(lambda x, _: attn(x), (x, table))


def test_merging_joins_neighbours_and_pads_odd_sides():
    merging = draw(PatchMerging(2))
    x = torch.randn(1, 3, 5, 2, dtype=torch.float64)
    got = merging(x)
    assert got.shape == (1, 2, 3, 4)
    zero = torch.zeros(2, dtype=torch.float64)
    corner = torch.cat([x[0, 2, 4], zero, zero, zero])  # the last token has no neighbours
    torch.testing.assert_close(got[0, 1, 2], merging.reduction(merging.norm(corner)))
    # order of a square, as in the published weights: top left, bottom left, top right, bottom right
    square = torch.cat([x[0, 0, 0], x[0, 1, 0], x[0, 0, 1], x[0, 1, 1]])
    torch.testing.assert_close(got[0, 0, 0], merging.reduction(merging.norm(square)))


@pytest.mark.parametrize("window", [7, 12])
@pytest.mark.parametrize("size", [(64, 96), (33, 61), (5, 250)], ids=str)
def test_any_size_and_an_image_does_not_depend_on_its_batch(window, size):
    backbone = draw(SwinTransformer(**{**TINY, "window": window})).eval()
    images = torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    with torch.no_grad():
        maps, alone = backbone(images), backbone(images[1:2])
    for name, spec in backbone.output_shape().items():
        assert maps[name].shape == (3, spec.channels, *(math.ceil(n / spec.stride) for n in size))
        torch.testing.assert_close(maps[name][1:2], alone[name])


def gradients(backbone, image) -> dict[str, Tensor]:
    backbone.zero_grad()
    torch.manual_seed(3)  # the blocks that drop path leaves out
    sum(m.square().mean() for m in backbone(image).values()).backward()
    return {name: parameter.grad.clone() for name, parameter in backbone.named_parameters()}


def test_recomputing_blocks_changes_no_gradient():
    options = {**TINY, "drop": 0.1, "attn_drop": 0.1, "drop_path": 0.5}
    plain = draw(SwinTransformer(**options))
    recomputing = copy.deepcopy(plain)
    recompute_blocks(recomputing)
    image = torch.randn(2, 3, 40, 52, dtype=torch.float64)
    torch.testing.assert_close(gradients(recomputing, image), gradients(plain, image))


def test_drop_path_grows_linearly_and_rests_at_evaluation():
    backbone = SwinTransformer(**TINY, drop_path=0.6)
    rates = [getattr(b.drop_path, "drop_prob", 0.0) for stage in backbone.layers for b in stage.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    image = torch.randn(1, 3, 32, 32)
    backbone.eval()
    torch.testing.assert_close(backbone(image), backbone(image), rtol=0, atol=0)


def test_masks_are_no_part_of_a_checkpoint_and_bias_indices_are():
    names = [name for name in SwinTransformer(**TINY).state_dict() if name.startswith("layers.0.blocks.1.attn.")]
    own = [name.removeprefix("layers.0.blocks.1.attn.") for name in names]
    assert own[:2] == ["relative_position_bias_table", "relative_position_index"]
    assert "shift_masks" not in own


def test_absolute_positions_are_resized_to_the_map():
    backbone = draw(SwinTransformer(**TINY, pretrain_size=32)).eval()
    assert backbone.absolute_pos_embed.shape == (1, 8, 8, 8)
    image = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        before = backbone(image)["res2"]
        backbone.absolute_pos_embed.zero_()
        assert not torch.allclose(backbone(image)["res2"], before)
        backbone.absolute_pos_embed.fill_(2.0)  # a constant stays one, whatever the size
        larger = torch.randn(1, 3, 44, 52, dtype=torch.float64)
        moved = backbone(larger)
        backbone.absolute_pos_embed = None
        backbone.patch_embed.norm.bias += 2.0
        torch.testing.assert_close(backbone(larger), moved)


def test_half_precision_stays_near():
    backbone = draw(SwinTransformer(**TINY)).float().eval()
    image = torch.randn(1, 3, 45, 61)
    with torch.no_grad():
        exact = backbone(image)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = backbone(image)
    for name, m in exact.items():
        assert (rough[name] - m).abs().mean() < 0.05 * m.abs().mean()


def test_a_model_trains_on_odd_sizes_and_uses_every_parameter(tiny_cfg, make_inputs):
    tiny_cfg.merge_from_list(["MODEL.BACKBONE.NAME", "D2SwinTransformer", "MODEL.MASK_FORMER.SIZE_DIVISIBILITY", 1])
    tiny_cfg.merge_from_list(["MODEL.SWIN.EMBED_DIM", 8, "MODEL.SWIN.NUM_HEADS", [1, 2, 2, 4]])
    tiny_cfg.merge_from_list(["MODEL.SWIN.DEPTHS", [2, 2, 2, 2], "MODEL.SWIN.DROP_PATH_RATE", 0.0])
    torch.manual_seed(0)
    model = build_model(tiny_cfg)
    losses = model(make_inputs(sizes=((61, 95), (47, 64))))
    sum(losses.values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_every_key_of_the_recipe_acts():
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = "D2SwinTransformer"
    cfg.MODEL.PIXEL_MEAN = [0.0] * 4
    cfg.MODEL.SWIN.merge_from_other_cfg(
        type(cfg)(
            {
                "PATCH_SIZE": 2,
                "EMBED_DIM": 8,
                "DEPTHS": [1, 2, 1, 1],
                "NUM_HEADS": [1, 2, 4, 8],
                "WINDOW_SIZE": 5,
                "MLP_RATIO": 3.0,
                "QKV_BIAS": False,
                "QK_SCALE": 0.7,
                "DROP_RATE": 0.1,
                "ATTN_DROP_RATE": 0.2,
                "DROP_PATH_RATE": 0.4,
                "APE": True,
                "PRETRAIN_IMG_SIZE": 20,
                "PATCH_NORM": False,
                "OUT_FEATURES": ["res4", "res3"],
                "USE_CHECKPOINT": True,
            }
        )
    )
    backbone = build_backbone(cfg)
    assert {n: (s.channels, s.stride) for n, s in backbone.output_shape().items()} == {"res3": (16, 4), "res4": (32, 8)}
    block = backbone.layers[1].blocks[1]
    shapes = {name: tuple(t.shape) for name, t in backbone.state_dict().items()}
    assert shapes["patch_embed.proj.weight"] == (8, 4, 2, 2)
    assert shapes["absolute_pos_embed"] == (1, 8, 10, 10)
    assert shapes["layers.1.blocks.1.attn.relative_position_bias_table"] == (81, 2)
    assert shapes["layers.1.blocks.1.mlp.fc1.weight"] == (48, 16)
    assert not {"patch_embed.norm.weight", "layers.1.blocks.1.attn.qkv.bias"} & set(shapes)
    assert (block.shift, block.attn.scale, block.attn.attn_drop) == (2, 0.7, 0.2)
    assert (block.attn.proj_drop.p, block.mlp.drop.p, backbone.pos_drop.p) == (0.1, 0.1, 0.1)
    assert block.drop_path.drop_prob == pytest.approx(0.2)  # third of five blocks
    assert all(block.recompute for stage in backbone.layers for block in stage.blocks)


def test_freeze_at_leaves_swin_alone():
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = "D2SwinTransformer"
    cfg.MODEL.BACKBONE.FREEZE_AT = 2
    with torch.device("meta"):
        assert all(p.requires_grad for p in build_backbone(cfg).parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depths": (2, 2)}, r"DEPTHS is \[2, 2\].*expected 4 values each"),
        ({"num_heads": (3, 6, 12, 24)}, r"NUM_HEADS is \[3, 6, 12, 24\].*\[8, 16, 32, 64\] channels"),
        ({"window": 0}, "WINDOW_SIZE is 0: expected at least 1"),
        ({"out_features": ("res1",)}, r"OUT_FEATURES is \['res1'\]: expected a choice of"),
    ],
)
def test_mistakes_are_answered_with_the_key(options, message):
    with pytest.raises(UserError, match=message):
        SwinTransformer(**{**TINY, **options})
