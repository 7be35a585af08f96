"""DETR's transformer with its tensor names: encoder over pixels, decoder over queries (Carion et al., ECCV 2020).

Positions are added anew in every layer, to queries and keys, never to values (DETR, sec. A.3).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mask2former.modeling.layers.attention import MultiheadAttention
from mask2former.modeling.layers.linear import Linear, feed_forward
from mask2former.modeling.layers.recompute import Recomputable

# L layers, B batch, Q queries, S pixels, C channels


class _Layer(Recomputable):
    """What both kinds of layers share: a feed-forward net, and steps ``x + f(x)`` with the norm after or before."""

    def __init__(self, channels: int, num_heads: int, hidden_channels: int, dropout: float, pre_norm: bool):
        super().__init__()
        self.self_attn = MultiheadAttention(channels, num_heads, dropout)
        self.linear1 = Linear(channels, hidden_channels)
        self.linear2 = Linear(hidden_channels, channels)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.drop = nn.Dropout(dropout)
        self.pre_norm = pre_norm
        for layer in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(layer.weight)

    def _step(self, norm: nn.LayerNorm, x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        if self.pre_norm:
            return x + self.drop(change(norm(x)))
        return norm(x + self.drop(change(x)))

    def _attend(self, x: Tensor, position: Tensor) -> Tensor:
        at = x + position
        return self.self_attn(at, at, x)

    def _feed_forward(self, x: Tensor) -> Tensor:
        return feed_forward(x, self.linear1, self.linear2, F.relu, self.drop)


class EncoderLayer(_Layer):
    """Pixels attend to each other, then a feed-forward net."""

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """x [B,S,C], position broadcastable to it."""
        x = self._step(self.norm1, x, lambda entry: self._attend(entry, position))
        return self._step(self.norm2, x, self._feed_forward)


class DecoderLayer(_Layer):
    """Queries attend to each other, then to the pixels, then a feed-forward net."""

    def __init__(self, channels: int, num_heads: int, hidden_channels: int, dropout: float, pre_norm: bool):
        super().__init__(channels, num_heads, hidden_channels, dropout, pre_norm)
        self.multihead_attn = MultiheadAttention(channels, num_heads, dropout)
        self.norm3 = nn.LayerNorm(channels)

    def forward(self, x: Tensor, position: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """x [B,Q,C], position broadcastable to it, keys (with their positions) and values [B,S,C]."""
        x = self._step(self.norm1, x, lambda entry: self._attend(entry, position))
        x = self._step(self.norm2, x, lambda entry: self.multihead_attn(entry + position, keys, values))
        return self._step(self.norm3, x, self._feed_forward)


class Encoder(nn.Module):
    """Layers over the pixels; a last norm where the layers begin with theirs."""

    def __init__(self, num_layers: int, channels: int, pre_norm: bool, **layer):
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(channels, pre_norm=pre_norm, **layer) for _ in range(num_layers))
        self.norm = nn.LayerNorm(channels) if pre_norm else None

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """x and position [B,S,C] -> [B,S,C]."""
        for layer in self.layers:
            x = layer(x, position)
        return x if self.norm is None else self.norm(x)


class Decoder(nn.Module):
    """Layers over the queries, which begin as zeros; the norm follows each layer's output."""

    def __init__(self, num_layers: int, channels: int, pre_norm: bool, **layer):
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(channels, pre_norm=pre_norm, **layer) for _ in range(num_layers))
        self.norm = nn.LayerNorm(channels)

    def forward(self, position: Tensor, keys: Tensor, values: Tensor, every_layer: bool) -> Tensor:
        """position [Q,C], keys and values [B,S,C] -> queries [L,B,Q,C] after every layer, or the last (L = 1)."""
        x, kept = position.new_zeros(len(keys), *position.shape), []
        for layer in self.layers:
            x = layer(x, position, keys, values)
            kept.append(x)
        return self.norm(torch.stack(kept if every_layer else kept[-1:]))


class Transformer(nn.Module):
    """Encoder and, where it has layers, decoder, under their published names.

    layer   num_heads, hidden_channels, dropout of every layer
    """

    def __init__(self, channels: int, *, encoder_layers: int, decoder_layers: int, pre_norm: bool, **layer):
        super().__init__()
        self.encoder = Encoder(encoder_layers, channels, pre_norm, **layer)
        self.decoder = Decoder(decoder_layers, channels, pre_norm, **layer) if decoder_layers else None
