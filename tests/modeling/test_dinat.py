import pytest
import torch

from mask2former.modeling import build_model
from mask2former.modeling.backbone.dinat import DiNAT, NeighborhoodAttention
from mask2former.ops.reference import neighborhood_attention_2d_reference
from mask2former.solver import build_optimizer
from mask2former.utils.errors import UserError

# B batch, C channels, H W size of a map in tokens, N heads, D channels of a head

SMALL = {"channels": 16, "depths": (2, 2, 1, 1), "num_heads": (1, 2, 4, 8), "kernel_size": 3}
DILATIONS = [[1, 4], [1, 2], [2], [1]]


def image(h=64, w=96, seed=0):
    return torch.randn(1, 3, h, w, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dinat(seed=0, **settings) -> DiNAT:
    torch.manual_seed(seed)
    return DiNAT(**{**SMALL, "dilations": DILATIONS, **settings}).double()


@pytest.mark.parametrize(("h", "w"), [(61, 90), (32, 33), (5, 7)])
def test_images_of_any_size(h, w):
    sizes = [(-(-h // s), -(-w // s)) for s in (4, 8, 16, 32)]
    with torch.no_grad():
        maps = dinat()(image(h, w))
    assert [tuple(m.shape[2:]) for m in maps.values()] == sizes


def test_dilation_one_everywhere_is_nat():
    nat, spelled = (dinat(dilations=d) for d in (None, [[1, 1], [1, 1], [1], [1]]))
    spelled.load_state_dict(nat.state_dict())
    with torch.no_grad():
        for name, expected in nat(image()).items():
            torch.testing.assert_close(spelled(image())[name], expected)
        dilated = dinat()
        dilated.load_state_dict(nat.state_dict())
        assert not torch.allclose(dilated(image())["res2"], nat(image())["res2"])


def test_what_is_added_to_small_maps_is_projected():
    torch.manual_seed(0)
    attention = NeighborhoodAttention(
        8, num_heads=2, kernel_size=3, dilation=2, qkv_bias=True, qk_scale=None, attn_drop=0.0, drop=0.0
    ).double()
    torch.nn.init.normal_(attention.qkv.bias)
    x = torch.randn(1, 4, 7, 8, dtype=torch.float64)
    extended = torch.zeros(1, 6, 7, 8, dtype=torch.float64)
    extended[:, :4] = x
    q, k, v = attention.qkv(extended).view(1, 6, 7, 3, 2, 4).permute(3, 0, 4, 1, 2, 5)
    out = neighborhood_attention_2d_reference(q, k, v, attention.rpb, 3, 2, 4**-0.5)
    expected = attention.proj(out.permute(0, 2, 3, 1, 4).reshape(1, 6, 7, 8))[:, :4]
    torch.testing.assert_close(attention(x), expected)


def test_layer_scale_has_the_published_names_and_scales_the_branches():
    plain, scaled = dinat(), dinat(layer_scale=1.0)
    factors = {name for name in scaled.state_dict() if name not in plain.state_dict()}
    assert factors == {
        f"levels.{i}.blocks.{j}.gamma{n}" for i, depth in enumerate((2, 2, 1, 1)) for j in range(depth) for n in (1, 2)
    }
    scaled.load_state_dict(plain.state_dict(), strict=False)
    with torch.no_grad():
        torch.testing.assert_close(scaled(image())["res5"], plain(image())["res5"])
        for name, parameter in scaled.named_parameters():
            if "gamma" in name:
                parameter.zero_()
        tokens = scaled.patch_embed(image())
        torch.testing.assert_close(scaled.levels[0](tokens), tokens)


def test_drop_path_grows_with_depth_and_acts_in_training_alone():
    backbone = dinat(drop_path=0.5)
    rates = [getattr(b.drop_path, "drop_prob", 0.0) for level in backbone.levels for b in level.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    with torch.no_grad():
        first, second = (backbone.train()(image())["res5"] for _ in range(2))
        assert not torch.equal(first, second)
        first, second = (backbone.eval()(image())["res5"] for _ in range(2))
        assert torch.equal(first, second)


def test_attention_dropout_acts_in_training_alone():
    backbone = dinat(attn_drop=0.5)
    with torch.no_grad():
        assert not torch.equal(backbone.train()(image())["res2"], backbone(image())["res2"])
        torch.testing.assert_close(backbone.eval()(image())["res2"], dinat().eval()(image())["res2"])


def test_levels_beyond_the_last_map_are_not_built():
    backbone = dinat(out_features=("res4", "res3"))
    assert list(backbone.output_shape()) == ["res3", "res4"]
    assert len(backbone.levels) == 3
    sum(m.sum() for m in backbone(image()).values()).backward()
    assert [name for name, p in backbone.named_parameters() if p.grad is None] == []


def test_two_training_steps(tiny_cfg, make_inputs):
    dinat_cfg = tiny_cfg.MODEL.DINAT
    dinat_cfg.EMBED_DIM, dinat_cfg.KERNEL_SIZE, dinat_cfg.DILATIONS = 16, 3, DILATIONS
    dinat_cfg.DEPTHS, dinat_cfg.NUM_HEADS = [2, 2, 1, 1], [1, 2, 4, 8]
    tiny_cfg.MODEL.BACKBONE.NAME = "D2DiNAT"
    tiny_cfg.SOLVER.BACKBONE_MULTIPLIER = 1.0
    torch.manual_seed(0)
    model = build_model(tiny_cfg)
    optimizer = build_optimizer(tiny_cfg, model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    totals = []
    for _ in range(2):
        torch.manual_seed(1)  # the same points and dropped paths, so that the losses can be compared
        total = sum(model(make_inputs()).values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    assert totals[1] < totals[0]
    moved = {name: not torch.equal(p, before[name]) for name, p in model.named_parameters() if "backbone" in name}
    assert any(name.endswith("rpb") for name in moved)
    assert [name for name, has in moved.items() if not has] == []


def test_bad_settings_are_answered():
    with pytest.raises(UserError, match=r"DILATIONS is \[\[1\]\].*DEPTHS is \[2, 2, 1, 1\]"):
        dinat(dilations=[[1]])
    with pytest.raises(UserError, match="number from 1"):
        dinat(dilations=[[1, 0], [1, 1], [1], [1]])
    with pytest.raises(UserError, match="KERNEL_SIZE is 4: expected an odd"):
        dinat(kernel_size=4)
    with pytest.raises(UserError, match=r"NUM_HEADS is \[3, 2, 4, 8\].*divisors"):
        dinat(num_heads=(3, 2, 4, 8))
    with pytest.raises(UserError, match="one per stage"):
        dinat(depths=(1, 1))
    with pytest.raises(UserError, match="OUT_FEATURES is"):
        dinat(out_features=("res1",))
