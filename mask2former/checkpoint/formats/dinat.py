"""DiNAT and NAT classifiers of their authors: our names without the prefix, one norm, and a classifier."""

from __future__ import annotations

from mask2former.checkpoint.formats.backbones import backbone_format
from mask2former.checkpoint.formats.rules import same

DINAT = backbone_format(
    "dinat",
    "the authors' DiNAT or NAT classifier",
    lambda weights: {"patch_embed.proj.1.weight", "levels.0.blocks.0.attn.qkv.weight"} <= weights.keys(),
    [same(f"backbone.{module}.", f"{module}.") for module in ("patch_embed", "levels", "norm{i}")],
    left_out=tuple(f"backbone.norm{i}.{leaf}" for i in range(4) for leaf in ("weight", "bias")),
)
