"""Blocks that can be computed again in the backward pass instead of keeping what it needs."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class Recomputable(nn.Module):
    """A module whose call, with ``recompute`` set, keeps its inputs alone for the backward pass (Chen et al., 2016).

    The result is the same; a training step takes about a third longer where every block does it.
    """

    recompute = False

    def __call__(self, *args):
        if self.recompute and self.training and torch.is_grad_enabled():
            return checkpoint(super().__call__, *args, use_reentrant=False)
        return super().__call__(*args)


def recomputed(module: nn.Module, *args):
    """The module's result, whose inside is computed again in the backward pass; not where norms count statistics."""
    counts = any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in module.modules())
    if counts or not module.training or not torch.is_grad_enabled():
        return module(*args)
    return checkpoint(module, *args, use_reentrant=False)


def recompute_blocks(model: nn.Module) -> None:
    """Let every block of ours below ``model``, and timm's, recompute."""
    for module in model.modules():
        if isinstance(module, Recomputable):
            module.recompute = True
        elif hasattr(module, "set_grad_checkpointing"):  # timm's way
            module.set_grad_checkpointing()
