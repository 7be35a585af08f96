"""Transformer layers of the query decoder: self-attention, cross-attention and feed-forward, each with its norm.

Tensor names are those of ``nn.MultiheadAttention``, whose layout published checkpoints have.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mask2former.modeling.layers.linear import Linear, feed_forward, linear
from mask2former.modeling.layers.recompute import Recomputable
from mask2former.ops.masked_attention import masked_attention

# B batch, Q queries, S memory pixels, C channels


class MultiheadAttention(nn.Module):
    """Multi-head attention, batch first, with a mask that is broadcast over heads instead of copied for each."""

    def __init__(self, channels: int, num_heads: int, dropout: float = 0.0):
        super().__init__()
        if channels % num_heads:
            raise ValueError(f"{num_heads} attention heads cannot divide {channels} channels")
        self.num_heads = num_heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * channels, channels))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * channels))
        self.out_proj = Linear(channels, channels)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None = None) -> Tensor:
        """query [B,Q,C], key and value [B,S,C], allowed [B,Q,S] bool (True may be attended to) -> [B,Q,C]."""
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases))
        dropout = self.dropout if self.training else 0.0
        return self.out_proj(masked_attention(q, k, v, allowed, self.num_heads, dropout))


class _Residual(Recomputable):
    """``x + f(x)`` with the norm after the sum (as published) or before ``f``."""

    def __init__(self, channels: int, dropout: float, pre_norm: bool):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.drop = nn.Dropout(dropout)
        self.pre_norm = pre_norm

    def _entry(self, x: Tensor) -> Tensor:
        return self.norm(x) if self.pre_norm else x

    def _exit(self, x: Tensor, change: Tensor) -> Tensor:
        x = x + self.drop(change)
        return x if self.pre_norm else self.norm(x)


class SelfAttentionLayer(_Residual):
    """Queries attend to each other; their positions are added to queries and keys."""

    def __init__(self, channels: int, num_heads: int, dropout: float, pre_norm: bool):
        super().__init__(channels, dropout, pre_norm)
        self.self_attn = MultiheadAttention(channels, num_heads, dropout)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """x [B,Q,C], position broadcastable to it."""
        entry = self._entry(x)
        at = entry + position
        return self._exit(x, self.self_attn(at, at, entry))


class CrossAttentionLayer(_Residual):
    """Queries attend to pixels."""

    def __init__(self, channels: int, num_heads: int, dropout: float, pre_norm: bool):
        super().__init__(channels, dropout, pre_norm)
        self.multihead_attn = MultiheadAttention(channels, num_heads, dropout)

    def forward(self, x: Tensor, position: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None) -> Tensor:
        """x [B,Q,C], position broadcastable to it, key (with its positions) and value [B,S,C], allowed [B,Q,S]."""
        return self._exit(x, self.multihead_attn(self._entry(x) + position, key, value, allowed))


class FFNLayer(_Residual):
    """Two linear layers with ReLU between."""

    def __init__(self, channels: int, hidden_channels: int, dropout: float, pre_norm: bool):
        super().__init__(channels, dropout, pre_norm)
        self.linear1 = Linear(channels, hidden_channels)
        self.linear2 = Linear(hidden_channels, channels)
        for layer in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        """x [B,Q,C]."""
        return self._exit(x, feed_forward(self._entry(x), self.linear1, self.linear2, F.relu, self.drop))
