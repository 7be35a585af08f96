"""What a query decoder predicts: classes, and masks as factors that are multiplied only where somebody looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mask2former.modeling.layers import onednn
from mask2former.modeling.layers.linear import linear

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
        """Mask logits [L,sum n_b,T,h,w] of the queries chosen for each image: B index tensors [L,n_b]."""
        one = len(queries) == 1  # the gradient of a squeezed tensor is not copied
        features = [self.mask_features.squeeze(0)] if one else self.mask_features.unbind(0)
        parts = []
        for image, (chosen, of_image) in enumerate(zip(queries, features)):
            embed = self.mask_embed[:, image]  # [L,Q,C]
            embed = embed.gather(1, chosen[..., None].expand(-1, -1, embed.shape[2]))
            bias = None if self.mask_bias is None else self.mask_bias[:, image].gather(1, chosen)
            parts.append(_product(embed, of_image, bias))
        return parts[0] if one else torch.cat(parts, 1)


def _product(embed: Tensor, features: Tensor, bias: Tensor | None) -> Tensor:
    """Masks [L,n,T,h,w] from [L,n,C], [C,T,h,w] and [L,n]."""
    if embed.numel() and onednn.usable(features):
        # by pixels, as they lie in memory on the CPU: so does the gradient of the features then
        pixels = features.permute(1, 2, 3, 0)
        masks = linear(pixels, embed.flatten(0, 1), None if bias is None else bias.flatten())  # [T,h,w,L*n]
        return masks.permute(3, 0, 1, 2).contiguous().unflatten(0, embed.shape[:2])
    masks = torch.einsum("lnc,cthw->lnthw", embed, features)
    return masks if bias is None else masks + bias[..., None, None, None]


def clips(maps: Tensor, frames: int) -> Tensor:
    """[B*T,C,h,w] of ``frames`` = T frames -> [B,C,T,h,w]."""
    return maps.unflatten(0, (-1, frames)).transpose(1, 2)
