"""Which learning rate and weight decay each parameter gets; one group per distinct pair."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

NORM_LAYERS = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
)

# position tables of Swin and DiNAT: decaying them would pull every offset towards the same attention;
# positions and extra tokens of plain vision transformers, which timm's own recipes leave alone, too
UNDECAYED_NAMES = (
    "relative_position_bias_table",
    "absolute_pos_embed",
    "rpb",
    "pos_embed",
    "cls_token",
    "reg_token",
)


def _parameters(model: nn.Module) -> Iterator[tuple[nn.Module, str, str, nn.Parameter]]:
    """Each trainable parameter once, as (its module, name in the model, own name, parameter), in registration order."""
    seen: set[nn.Parameter] = set()
    for module_name, module in model.named_modules():
        for own_name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                yield module, f"{module_name}.{own_name}".lstrip("."), own_name, parameter


def make_param_groups(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    backbone_multiplier: float = 1.0,
    weight_decay_norm: float | None = None,
    weight_decay_embed: float | None = None,
    bias_lr_factor: float = 1.0,
    weight_decay_bias: float | None = None,
) -> list[dict]:
    """Sort the trainable parameters of a model into groups for a torch optimiser.

    The rules, later ones over earlier ones: parameters below a module called `backbone` learn at
    `lr * backbone_multiplier`; norm layers decay by `weight_decay_norm`, `nn.Embedding` by `weight_decay_embed`; the
    tables in `UNDECAYED_NAMES` do not decay; parameters called `bias` learn `bias_lr_factor` times as fast and decay by
    `weight_decay_bias`. A decay of None leaves what the earlier rules say. Shared parameters count once, frozen ones
    not at all.

    Returns:
        One dict per distinct (lr, weight decay): `params` as (name, parameter) pairs, `lr`, `weight_decay`. torch keeps
        the names in the group under `param_names`.
    """
    groups: dict[tuple[float, float], list] = {}
    for module, name, own_name, parameter in _parameters(model):
        rate, decay = lr, weight_decay
        if "backbone" in name.split("."):
            rate *= backbone_multiplier
        if isinstance(module, NORM_LAYERS) and weight_decay_norm is not None:
            decay = weight_decay_norm
        elif isinstance(module, nn.Embedding) and weight_decay_embed is not None:
            decay = weight_decay_embed
        if own_name in UNDECAYED_NAMES:
            decay = 0.0
        if own_name == "bias":
            rate *= bias_lr_factor
            decay = decay if weight_decay_bias is None else weight_decay_bias
        groups.setdefault((rate, decay), []).append((name, parameter))
    return [{"params": named, "lr": rate, "weight_decay": decay} for (rate, decay), named in groups.items()]
