"""The head: pixel decoder and query decoder, under their published names."""

from __future__ import annotations

from torch import Tensor, nn

from mask2former.modeling.transformer_decoder.output import QueryPredictions


class MaskFormerHead(nn.Module):
    """Backbone maps -> query predictions."""

    def __init__(self, pixel_decoder: nn.Module, predictor: nn.Module):
        super().__init__()
        self.pixel_decoder = pixel_decoder
        self.predictor = predictor

    def forward(self, maps: dict[str, Tensor], frames: int, every_layer: bool) -> QueryPredictions:
        """Maps {name: [B*T,C,h,w]} of ``frames`` = T frames; ``every_layer`` keeps auxiliary predictions."""
        mask_features, memory = self.pixel_decoder(maps)
        return self.predictor(memory, mask_features, frames, every_layer)
