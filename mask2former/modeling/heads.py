"""The head: pixel decoder and query decoder, under their published names."""

from __future__ import annotations

import inspect

from torch import Tensor, nn

from mask2former.modeling.layers.plain import is_plain
from mask2former.modeling.transformer_decoder.output import QueryPredictions

# N images (batch x frames), C channels

MEMORY_SOURCES = ("multi_scale_pixel_decoder", "transformer_encoder", "pixel_embedding")  # beside backbone maps


class MaskFormerHead(nn.Module):
    """Backbone maps -> query predictions.

    memory_from  what the queries attend to (MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE): every memory map of the pixel
                 decoder ("multi_scale_pixel_decoder"), its coarsest one ("transformer_encoder"), the mask features
                 ("pixel_embedding"), or a backbone map by name
    """

    def __init__(self, pixel_decoder: nn.Module, predictor: nn.Module, memory_from: str = "multi_scale_pixel_decoder"):
        super().__init__()
        self.pixel_decoder = pixel_decoder
        self.predictor = predictor
        self.memory_from = memory_from
        self._can_fold = (  # the parts know how, and nothing else looks at the mask features
            memory_from == MEMORY_SOURCES[0]
            and _accepts(pixel_decoder, "project")
            and _accepts(predictor, "projection")
        )

    def forward(self, maps: dict[str, Tensor], frames: int, every_layer: bool) -> QueryPredictions:
        """Maps {name: [N,C,h,w]} of ``frames`` = T frames; ``every_layer`` keeps auxiliary predictions."""
        if self._folds():
            mask_features, memory = self.pixel_decoder(maps, project=False)
            return self.predictor(memory, mask_features, frames, every_layer, self.pixel_decoder.mask_features)
        mask_features, memory = self.pixel_decoder(maps)
        if self.memory_from == "transformer_encoder":
            memory = memory[:1]
        elif self.memory_from == "pixel_embedding":
            memory = [mask_features]
        elif self.memory_from != "multi_scale_pixel_decoder":
            memory = [maps[self.memory_from]]
        return self.predictor(memory, mask_features, frames, every_layer)

    def _folds(self) -> bool:
        """Whether mask embeddings take over the last layer of the mask features, a product with every pixel.

        Not where its weights do not tell all that it does (hooked, pruned, replaced), or it makes the maps narrower.
        """
        if not self._can_fold:
            return False
        last = self.pixel_decoder.mask_features
        plain = type(last) is nn.Conv2d and last.bias is not None and is_plain(last)
        return plain and last.in_channels <= last.out_channels


def _accepts(module: nn.Module, argument: str) -> bool:
    """Whether a module can be called with an argument: users' own ones need not know it."""
    return argument in inspect.signature(module.forward).parameters
