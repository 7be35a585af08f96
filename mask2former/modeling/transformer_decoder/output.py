"""What a query decoder predicts: classes, and masks as factors that are multiplied only where somebody looks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# L prediction layers, B batch, Q queries, K classes, C channels, T frames, h w map size at stride 4


@dataclass
class QueryPredictions:
    """Predictions of L layers, the final one last.

    class_logits  [L,B,Q,K+1], the last class is "no object"
    mask_embed    [L,B,Q,C]
    mask_features [B,C,T,h,w]; the mask logits of a query are ``<mask_embed, mask_features>``
    """

    class_logits: Tensor
    mask_embed: Tensor
    mask_features: Tensor

    def final_masks(self) -> Tensor:
        """Mask logits [B,Q,T,h,w] of every query of the final layer."""
        return torch.einsum("bqc,bcthw->bqthw", self.mask_embed[-1], self.mask_features)

    def masks_of(self, layer: int, queries: list[Tensor]) -> Tensor:
        """Mask logits [sum n_b,T,h,w] of the queries chosen for each image, a list of B index tensors [n_b]."""
        parts = [
            torch.einsum("nc,cthw->nthw", self.mask_embed[layer, image, chosen], self.mask_features[image])
            for image, chosen in enumerate(queries)
        ]
        return torch.cat(parts)
