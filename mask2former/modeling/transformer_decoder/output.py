"""What a query decoder predicts: classes, and masks as factors that are multiplied only where somebody looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# L prediction layers, B batch, Q queries, K classes, C channels, T frames, h w map size at stride 4


@dataclass
class QueryPredictions:
    """Predictions of L layers, the final one last.

    class_logits  [L,B,Q,K+1], the last class is "no object"; None where each query stands for a class
    mask_embed    [L,B,Q,C]
    mask_features [B,C,T,h,w]; the mask logits of a query are ``<mask_embed, mask_features> + mask_bias``
    mask_bias     [L,B,Q]; None: zero
    """

    class_logits: Tensor | None
    mask_embed: Tensor
    mask_features: Tensor
    mask_bias: Tensor | None = None

    def masks(self) -> Tensor:
        """Mask logits [L,B,Q,T,h,w] of every query of every layer."""
        return self._masks(slice(None))

    def final_masks(self) -> Tensor:
        """Mask logits [B,Q,T,h,w] of every query of the final layer."""
        return self._masks(slice(-1, None))[0]

    def _masks(self, layers: slice) -> Tensor:
        masks = torch.einsum("lbqc,bcthw->lbqthw", self.mask_embed[layers], self.mask_features)
        return masks if self.mask_bias is None else masks.add_(self.mask_bias[layers, ..., None, None, None])

    def masks_of(self, queries: Sequence[Tensor]) -> Tensor:
        """Mask logits [L,sum n_b,T,h,w] of the queries chosen for each image: B index tensors [L,n_b].

        Raises ValueError where there is a ``mask_bias``: losses are of projected mask features.
        """
        if self.mask_bias is not None:
            raise ValueError("losses need predictions of every layer, whose mask features are projected")
        parts = [
            torch.einsum("lnc,cthw->lnthw", embed.gather(1, chosen[..., None].expand(-1, -1, embed.shape[2])), features)
            for embed, features, chosen in zip(self.mask_embed.unbind(1), self.mask_features.unbind(0), queries)
        ]
        return torch.cat(parts, 1)


def clips(maps: Tensor, frames: int) -> Tensor:
    """[B*T,C,h,w] of ``frames`` = T frames -> [B,C,T,h,w]."""
    return maps.unflatten(0, (-1, frames)).transpose(1, 2)
