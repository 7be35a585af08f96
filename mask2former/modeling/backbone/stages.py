"""What transformer backbones of four stages share: names, initial weights, and the check of their settings."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from mask2former.utils.errors import UserError

STAGES = ("res2", "res3", "res4", "res5")


def init_linear(module: nn.Module) -> None:
    """For ``apply``: the initial weights of the classification training (as in DeiT); other layers keep torch's."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def check_stages(
    section: str, channels: int, depths: Sequence[int], num_heads: Sequence[int], out_features: Sequence[str]
) -> None:
    """Raises UserError, with the keys of that section of MODEL, where the settings do not fit together."""
    if len(depths) != len(STAGES) or len(num_heads) != len(STAGES):
        raise UserError(
            f"MODEL.{section}.DEPTHS is {list(depths)} and NUM_HEADS is {list(num_heads)}: expected {len(STAGES)} "
            "values each, one per stage."
        )
    if any(channels * 2**i % heads for i, heads in enumerate(num_heads)):
        raise UserError(
            f"MODEL.{section}.NUM_HEADS is {list(num_heads)}, but the stages have "
            f"{[channels * 2**i for i in range(len(STAGES))]} channels (EMBED_DIM, doubled with every stage): expected "
            "divisors of them."
        )
    unknown = [f for f in out_features if f not in STAGES]
    if unknown or not out_features:
        raise UserError(f"MODEL.{section}.OUT_FEATURES is {list(out_features)}: expected a choice of {list(STAGES)}.")
