"""MaskFormer's query decoder, DETR's transformer (Cheng et al., NeurIPS 2021, sec. 3.3; Carion et al., ECCV 2020)."""

from __future__ import annotations

from torch import Tensor, nn

from mask2former.modeling.layers.conv import init_xavier
from mask2former.modeling.layers.detr import Transformer
from mask2former.modeling.layers.mlp import MLP
from mask2former.modeling.layers.position_encoding import sine_position_encoding
from mask2former.modeling.transformer_decoder.output import QueryPredictions, clips

# L layers, B batch, T frames, Q queries, K classes, C channels, S = T*h*w pixels of the memory


class StandardTransformerDecoder(nn.Module):
    """Queries attend to every pixel of one memory map, layer by layer; each layer's output makes a prediction.

    in_channels     width of the memory; hidden_channels of the queries; mask_channels of the mask features
    num_classes     K; None: no classes are predicted, as each query stands for one (per-pixel baseline)
    encoder_layers  layers over the memory before the decoder's num_layers
    """

    def __init__(
        self,
        in_channels: int,
        *,
        num_classes: int | None,
        hidden_channels: int,
        num_queries: int,
        num_heads: int,
        hidden_ffn_channels: int,
        encoder_layers: int,
        num_layers: int,
        mask_channels: int,
        dropout: float = 0.0,
        pre_norm: bool = False,
        enforce_input_proj: bool = False,
    ):
        super().__init__()
        self.transformer = Transformer(
            hidden_channels,
            encoder_layers=encoder_layers,
            decoder_layers=num_layers,
            pre_norm=pre_norm,
            num_heads=num_heads,
            hidden_channels=hidden_ffn_channels,
            dropout=dropout,
        )
        self.query_embed = nn.Embedding(num_queries, hidden_channels)
        project = in_channels != hidden_channels or enforce_input_proj
        self.input_proj = init_xavier(nn.Conv2d(in_channels, hidden_channels, 1)) if project else nn.Identity()
        self.class_embed = None if num_classes is None else nn.Linear(hidden_channels, num_classes + 1)
        self.mask_embed = MLP(hidden_channels, hidden_channels, mask_channels, 3)

    def forward(
        self, memory: list[Tensor], mask_features: Tensor, frames: int = 1, every_layer: bool = True
    ) -> QueryPredictions:
        """One memory map [B*T,C,h,w] and mask features [B*T,M,H,W] of ``frames`` = T frames.

        ``every_layer`` keeps the predictions of all layers (L = num_layers), else the final one's (L = 1).
        """
        (memory_map,) = memory
        projected = clips(self.input_proj(memory_map), frames)  # [B,C,T,h,w]
        encoding = sine_position_encoding(
            tuple(projected.shape[2:]),
            projected.shape[1],
            temporal=False,
            device=projected.device,
            dtype=projected.dtype,
        )
        position = encoding.flatten(1).t()  # [S,C]
        tokens = self.transformer.encoder(projected.flatten(2).transpose(1, 2), position)
        queries = self.transformer.decoder(self.query_embed.weight, tokens + position, tokens, every_layer)
        class_logits = None if self.class_embed is None else self.class_embed(queries)
        return QueryPredictions(class_logits, self.mask_embed(queries), clips(mask_features, frames))
