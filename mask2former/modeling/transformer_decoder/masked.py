"""Masked-attention transformer decoder (Cheng et al., Mask2Former, CVPR 2022, sec. 3.2.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mask2former.modeling.layers.attention import CrossAttentionLayer, FFNLayer, SelfAttentionLayer
from mask2former.modeling.layers.conv import init_xavier
from mask2former.modeling.layers.mlp import MLP
from mask2former.modeling.layers.position_encoding import sine_position_encoding
from mask2former.modeling.transformer_decoder.output import QueryPredictions, clips

# B batch, T frames, Q queries, K classes, C channels, S = T*h*w pixels of one level


class MultiScaleMaskedTransformerDecoder(nn.Module):
    """Queries attend, level by level, to the pixels inside the mask they predicted one layer before.

    in_channels    width of the memory maps; hidden_channels of the queries; mask_channels of the mask features
    num_layers     decoder layers; predictions are made before the first and after each
    temporal       adds the frame to the position encoding (clips); images use the 2-D encoding
    """

    num_levels = 3

    def __init__(
        self,
        in_channels: int,
        *,
        num_classes: int,
        hidden_channels: int,
        num_queries: int,
        num_heads: int,
        hidden_ffn_channels: int,
        num_layers: int,
        mask_channels: int,
        dropout: float = 0.0,
        pre_norm: bool = False,
        enforce_input_proj: bool = False,
        temporal: bool = False,
    ):
        super().__init__()
        self.temporal = temporal
        block = {"dropout": dropout, "pre_norm": pre_norm}
        layers = range(num_layers)
        self.transformer_self_attention_layers = nn.ModuleList(
            SelfAttentionLayer(hidden_channels, num_heads, **block) for _ in layers
        )
        self.transformer_cross_attention_layers = nn.ModuleList(
            CrossAttentionLayer(hidden_channels, num_heads, **block) for _ in layers
        )
        self.transformer_ffn_layers = nn.ModuleList(
            FFNLayer(hidden_channels, hidden_ffn_channels, **block) for _ in layers
        )
        self.decoder_norm = nn.LayerNorm(hidden_channels)
        self.query_feat = nn.Embedding(num_queries, hidden_channels)
        self.query_embed = nn.Embedding(num_queries, hidden_channels)
        self.level_embed = nn.Embedding(self.num_levels, hidden_channels)
        project = in_channels != hidden_channels or enforce_input_proj
        self.input_proj = nn.ModuleList(
            init_xavier(nn.Conv2d(in_channels, hidden_channels, 1)) if project else nn.Identity()
            for _ in range(self.num_levels)
        )
        self.class_embed = nn.Linear(hidden_channels, num_classes + 1)
        self.mask_embed = MLP(hidden_channels, hidden_channels, mask_channels, 3)

    def forward(
        self,
        memory: list[Tensor],
        mask_features: Tensor,
        frames: int = 1,
        every_layer: bool = True,
        projection: nn.Conv2d | None = None,
    ) -> QueryPredictions:
        """Memory maps [B*T,C,h,w], coarsest first, and mask features [B*T,M,h,w] of ``frames`` = T frames.

        ``every_layer`` keeps the predictions of all layers (L = num_layers + 1), else the final one's (L = 1).
        ``projection`` is a 1x1 convolution that ``mask_features`` have still before them.
        """
        features = clips(mask_features, frames)
        keys, values, masks_at = zip(*(self._level(i, m, mask_features, frames) for i, m in enumerate(memory)))
        position = self.query_embed.weight
        queries = self.query_feat.weight.expand(features.shape[0], -1, -1)
        kept = [self._embed(queries, projection)]
        blocks = zip(
            self.transformer_cross_attention_layers,
            self.transformer_self_attention_layers,
            self.transformer_ffn_layers,
        )
        for index, (cross, self_attention, ffn) in enumerate(blocks):
            level = index % self.num_levels
            allowed = _foreground(*kept[-1][1:], masks_at[level])
            queries = cross(queries, position, keys[level], values[level], allowed)
            queries = ffn(self_attention(queries, position))
            kept.append(self._embed(queries, projection))
        normed, mask_embed, bias = zip(*(kept if every_layer else kept[-1:]))
        mask_bias = None if projection is None else torch.stack(bias)
        return QueryPredictions(self.class_embed(torch.stack(normed)), torch.stack(mask_embed), features, mask_bias)

    def _level(self, level: int, memory: Tensor, mask_features: Tensor, frames: int) -> tuple[Tensor, Tensor, Tensor]:
        """Keys and values [B,S,C] of a memory map, and the mask features [B,M,S] at its resolution."""
        memory = clips(self.input_proj[level](memory), frames)
        values = memory.flatten(2).transpose(1, 2) + self.level_embed.weight[level]
        encoding = sine_position_encoding(
            tuple(memory.shape[2:]),
            memory.shape[1],
            temporal=self.temporal,
            device=memory.device,
            dtype=memory.dtype,
        )
        keys = values + encoding.flatten(1).t()
        # a mask is linear in the mask features, so resizing these once serves every layer and query
        size = memory.shape[-2:]
        resized = F.interpolate(mask_features.detach(), size=size, mode="bilinear", align_corners=False)
        return keys, values, clips(resized, frames).flatten(2)

    def _embed(self, queries: Tensor, projection: nn.Conv2d | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Normed queries [B,Q,C], from which classes are predicted, their mask embeddings [B,Q,M], and biases [B,Q]."""
        normed = self.decoder_norm(queries)
        embed = self.mask_embed(normed)
        if projection is None:
            return normed, embed, None
        # <e, W f + b> = <W'e, f> + <e, b>: a product with few queries instead of one with every pixel
        return normed, embed @ projection.weight.flatten(1), F.linear(embed, projection.bias[None])[..., 0]


@torch.no_grad()
def _foreground(mask_embed: Tensor, bias: Tensor | None, features: Tensor) -> Tensor:
    """Where a query's mask has a probability of at least one half, [B,Q,S]; everywhere for an empty mask."""
    logits = torch.einsum("bqc,bcs->bqs", mask_embed, features)
    allowed = logits >= (0 if bias is None else -bias[..., None])
    return allowed | ~allowed.any(2, keepdim=True)
