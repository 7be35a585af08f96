import timm
import torch
from torch import nn

from mask2former.modeling.backbone.swin import SwinTransformer
from mask2former.solver import make_param_groups


class Table(nn.Module):
    def __init__(self):
        super().__init__()
        self.relative_position_bias_table = nn.Parameter(torch.zeros(3, 2))
        self.linear = nn.Linear(2, 2)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), Table())
        self.head = nn.Module()
        self.head.query = nn.Embedding(5, 4)
        self.head.norm = nn.LayerNorm(4)
        self.head.linear = nn.Linear(4, 4)
        self.head.tied = self.head.linear
        self.head.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.head.backbone_like = nn.Linear(4, 4)


RULES = {
    "lr": 1.0,
    "weight_decay": 0.05,
    "backbone_multiplier": 0.1,
    "weight_decay_norm": 0.01,
    "weight_decay_embed": 0.02,
}


def settings(model, **rules):
    """name -> (lr, weight decay), and the groups."""
    groups = make_param_groups(model, **{**RULES, **rules})
    return {name: (g["lr"], g["weight_decay"]) for g in groups for name, _ in g["params"]}, groups


def test_rules():
    got, _ = settings(Model())
    assert got == {
        "backbone.0.weight": (0.1, 0.05),
        "backbone.0.bias": (0.1, 0.05),
        "backbone.1.weight": (0.1, 0.01),
        "backbone.1.bias": (0.1, 0.01),
        "backbone.2.relative_position_bias_table": (0.1, 0.0),
        "backbone.2.linear.weight": (0.1, 0.05),
        "backbone.2.linear.bias": (0.1, 0.05),
        "head.query.weight": (1.0, 0.02),
        "head.norm.weight": (1.0, 0.01),
        "head.norm.bias": (1.0, 0.01),
        "head.linear.weight": (1.0, 0.05),
        "head.linear.bias": (1.0, 0.05),
        "head.backbone_like.weight": (1.0, 0.05),
        "head.backbone_like.bias": (1.0, 0.05),
    }


def test_one_group_per_distinct_setting_and_each_parameter_once():
    model = Model()
    got, groups = settings(model)
    assert len(groups) == len(set(got.values()))
    grouped = [p for g in groups for _, p in g["params"]]
    assert len(grouped) == len({id(p) for p in grouped}) == sum(p.requires_grad for p in model.parameters())


def test_bias_rules_come_last_and_only_when_set():
    got, _ = settings(Model(), bias_lr_factor=2.0, weight_decay_bias=0.0)
    assert got["backbone.0.bias"] == (0.2, 0.0)
    assert got["head.norm.bias"] == (2.0, 0.0)
    assert got["head.linear.weight"] == (1.0, 0.05)


def test_none_leaves_the_general_decay():
    got, _ = settings(Model(), weight_decay_norm=None, weight_decay_embed=None)
    assert got["head.norm.weight"] == got["head.query.weight"] == (1.0, 0.05)


def test_torch_keeps_the_names():
    _, groups = settings(Model())
    optimizer = torch.optim.AdamW(groups)
    assert "head.query.weight" in [name for g in optimizer.param_groups for name in g["param_names"]]


def test_position_tables_and_norms_of_swin_do_not_decay():
    model = nn.Module()
    model.backbone = SwinTransformer(channels=8, depths=(1, 2, 1, 1), num_heads=(1, 2, 4, 8), pretrain_size=32)
    got, _ = settings(model, weight_decay_norm=0.0)
    assert {rate for rate, _ in got.values()} == {0.1}
    undecayed = {name for name, (_, decay) in got.items() if decay == 0.0}
    kept = {name for name in got if name not in undecayed}
    assert "backbone.absolute_pos_embed" in undecayed
    assert sum(name.endswith("relative_position_bias_table") for name in undecayed) == 5
    norms = {name for name in got if ".norm" in name}  # of the maps, blocks, mergings and patches
    assert undecayed - norms == {name for name in got if name.endswith(("_table", "absolute_pos_embed"))}
    assert norms <= undecayed
    # what is left: linear layers and the patch embedding, with their biases
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in kept} == {"proj", "qkv", "fc1", "fc2", "reduction"}


def test_positions_and_extra_tokens_of_transformers_do_not_decay():
    body = timm.create_model("vit_tiny_patch16_224", reg_tokens=1)
    groups = make_param_groups(body, lr=1.0, weight_decay=0.1, weight_decay_norm=0.1)
    rested = {name for group in groups if group["weight_decay"] == 0 for name, _ in group["params"]}
    assert rested == {"pos_embed", "cls_token", "reg_token"}
