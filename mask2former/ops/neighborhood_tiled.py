"""Neighbourhood attention in two dimensions in plain torch, for any device: dense attention of tiles.

What is computed is said in ``neighborhood_attn.py``, and the plain definition is in ``reference.py``.

Attention with dilation d is attention without it inside each of the d*d groups of pixels that are d apart. A group is
cut into tiles. The queries of a tile see little more keys than each of them alone, so a tile is one dense attention in
which keys outside a query's neighbourhood get the logit -inf. Tiles away from the border all look alike and are
computed together; near the border neighbourhoods are shifted inwards, and there are a few other kinds of tile. The
backward pass computes the attention weights again, tile by tile: they are never held for the whole map.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

# B batch, N heads, H W pixels, D channels per head
# G groups of pixels (row, column), T tiles (row, column), Q = q*q queries and K = k*k keys of a tile

TILE = 8  # edge of a tile, in queries; on a CPU 6 to 11 differ little, 4 takes half as long again
MAX_LOGITS = 2**22  # of one step; memory beyond inputs and outputs is a few times this, and stays near the cache


def neighborhood_attention_2d_tiled(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rpb: Tensor | None,
    kernel_size: int,
    dilation: int,
    scale: float,
    dropout: float = 0.0,
) -> Tensor:
    """:func:`mask2former.ops.neighborhood_attention_2d` of arguments that fit together."""
    height, width = (int(n) for n in q.shape[2:4])  # plain numbers also where a tracer watches
    q, k, v, rpb, size = _extend(q, k, v, rpb, kernel_size, dilation)
    seed = int(torch.randint(2**31, ())) if dropout else 0  # so that both passes drop the same weights
    learns = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v, rpb))
    op = _NeighborhoodAttention.apply if learns else _attend  # without a gradient, tracers see what is done
    return op(q, k, v, rpb, size, kernel_size, dilation, scale, dropout, seed)[:, :, :height, :width]


def neighborhood_attention_2d_forward(
    q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, kernel_size: int, dilation: int, scale: float
) -> tuple[Tensor, Tensor]:
    """The forward pass of the custom op, for graphs that hold it; the logarithms of sums are not computed: zeros."""
    out = neighborhood_attention_2d_tiled(q, k, v, rpb, kernel_size, dilation, scale)
    return out, q.new_zeros(q.shape[:4], dtype=torch.promote_types(q.dtype, torch.float32))


def neighborhood_attention_2d_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rpb: Tensor | None,
    out: Tensor,
    lse: Tensor,
    kernel_size: int,
    dilation: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """The backward pass of the custom op; lse is not looked at."""
    height, width = q.shape[2:4]
    *inputs, size = _extend(q, k, v, rpb, kernel_size, dilation)
    *_, bottom, right = _missing(q, kernel_size, dilation)
    grad, out = (F.pad(x, (0, 0, 0, right, 0, bottom)) for x in (grad, out))
    grads = _gradients(grad, *inputs, out, size, kernel_size, dilation, scale, 0.0, 0)
    maps = (g[:, :, :height, :width].to(q.dtype) for g in grads[:3])
    return (*maps, None if rpb is None else grads[3].to(rpb.dtype))


def _missing(q: Tensor, kernel_size: int, dilation: int) -> tuple[int, int, int, int]:
    """Rows and columns that are looked at, and those to add to q: storage is whole periods of the dilation."""
    height, width = (int(n) for n in q.shape[2:4])
    size = tuple(max(n, kernel_size * dilation) for n in (height, width))
    return (*size, *(-(-n // dilation) * dilation - had for n, had in zip(size, (height, width))))


def _extend(
    q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, kernel_size: int, dilation: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, tuple[int, int]]:
    """Add zeros below and to the right of small maps, and a bias where there is none; also the size to look at."""
    *size, bottom, right = _missing(q, kernel_size, dilation)
    if bottom or right:
        q, k, v = (F.pad(x, (0, 0, 0, right, 0, bottom)) for x in (q, k, v))
    if rpb is None:
        rpb = q.new_zeros(q.shape[1], 2 * kernel_size - 1, 2 * kernel_size - 1)
    return q, k, v, rpb, tuple(size)


# ---- which queries and keys belong together


@dataclass(frozen=True, eq=False)
class _Run:
    """Equal tiles in a row along one axis of a group: tile t has the queries from first + t * size.

    The keys of tile t are the key_size ones from key_first + t * size.
    """

    first: int
    size: int
    key_first: int
    key_size: int
    offsets: np.ndarray  # [size,key_size], index into an axis of rpb, or 2k-1 where the query does not see the key
    count: int = 1

    def queries(self, x: Tensor, dim: int) -> Tensor:
        """View of the tiles' queries: axis ``dim`` becomes (tile, query)."""
        return x.narrow(dim, self.first, self.count * self.size).unflatten(dim, (self.count, self.size))

    def keys(self, x: Tensor, dim: int) -> Tensor:
        """View of the tiles' keys, which overlap: axis ``dim`` becomes the tile, and the keys are appended."""
        length = (self.count - 1) * self.size + self.key_size
        return x.narrow(dim, self.key_first, length).unfold(dim, self.key_size, self.size)


@functools.lru_cache(maxsize=256)
def _runs(length: int, kernel_size: int) -> tuple[_Run, ...]:
    """The tiles along an axis of a group with that many pixels, equal ones next to each other brought together."""
    starts = (np.arange(length) - kernel_size // 2).clip(0, length - kernel_size)  # first key of each query
    edge = -(-length // -(-length // TILE))  # as near to TILE as equal tiles get
    runs: list[_Run] = []
    for first in range(0, length, edge):
        queries = np.arange(first, min(first + edge, length))[:, None]
        begin = starts[queries]
        keys = np.arange(begin.min(), begin.max() + kernel_size)
        seen = (keys >= begin) & (keys < begin + kernel_size)
        offsets = np.where(seen, keys - queries + kernel_size - 1, 2 * kernel_size - 1)
        if runs and np.array_equal(runs[-1].offsets, offsets):
            last = runs.pop()
            runs.append(_Run(last.first, edge, last.key_first, last.key_size, offsets, last.count + 1))
        else:
            runs.append(_Run(first, len(queries), int(keys[0]), len(keys), offsets))
    return tuple(runs)


@dataclass(frozen=True, eq=False)
class _Step:
    """Tiles of one kind that are computed together: some rows of groups, some rows of tiles."""

    dilation: int
    groups: tuple[slice, slice]  # rows and columns of groups, all with `lengths` pixels
    lengths: tuple[int, int]
    rows: _Run
    columns: _Run
    tiles: slice  # rows of tiles

    def _groups(self, x: Tensor) -> Tensor:
        """[B,N,H,W,D] -> view [G,G,B,N,h,w,D]."""
        x = x.unflatten(3, (-1, self.dilation)).unflatten(2, (-1, self.dilation))  # [B,N,h,G,w,G,D]
        x = x.permute(3, 5, 0, 1, 2, 4, 6)[self.groups]
        return x[:, :, :, :, : self.lengths[0], : self.lengths[1]]

    def queries(self, x: Tensor) -> Tensor:
        """[B,N,H,W,D] -> view [G,G,B,T,T,N,q,q,D]."""
        x = self.columns.queries(self.rows.queries(self._groups(x), 4), 6)  # [G,G,B,N,T,q,T,q,D]
        return x.permute(0, 1, 2, 4, 6, 3, 5, 7, 8)[:, :, :, self.tiles]

    def _keys(self, x: Tensor) -> Tensor:
        """[B,N,H,W,D] -> view [G,G,B,T,T,N,k,k,D]; the tiles overlap."""
        x = self.columns.keys(self.rows.keys(self._groups(x), 4), 5)  # [G,G,B,N,T,T,D,k,k]
        return x.permute(0, 1, 2, 4, 5, 3, 7, 8, 6)[:, :, :, self.tiles]

    def gather(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [*,N,Q,D], keys and values [*,N,K,D], with all groups and tiles in the first axis."""
        return tuple(x.flatten(6, 7).flatten(0, 4) for x in (self.queries(q), self._keys(k), self._keys(v)))

    def add_to_keys(self, total: Tensor, part: Tensor) -> None:
        """Add part [*,N,K,D] to total [B,N,H,W,D]; only tiles that do not overlap are added at once."""
        view = self._keys(total)
        part = part.view(view.shape)
        rows, columns = (-(-run.key_size // run.size) for run in (self.rows, self.columns))
        for row in range(min(rows, view.shape[3])):
            for column in range(min(columns, view.shape[4])):
                view[:, :, :, row::rows, column::columns] += part[:, :, :, row::rows, column::columns]

    def places(self, edge: int) -> np.ndarray:
        """[Q,K], index into a flat table [edge*edge] of rpb."""
        rows, columns = self.rows.offsets[:, None, :, None], self.columns.offsets[None, :, None, :]
        return (rows * edge + columns).reshape(self.rows.size * self.columns.size, -1)


def _plan(size: tuple[int, int], kernel_size: int, dilation: int, planes: int) -> Iterator[_Step]:
    """The steps that cover a map of ``size``, each within MAX_LOGITS where a row of tiles is; planes: B*N."""
    for rows_of_groups, height in _equal_groups(size[0], dilation):
        for columns_of_groups, width in _equal_groups(size[1], dilation):
            for rows in _runs(height, kernel_size):
                for columns in _runs(width, kernel_size):
                    logits = rows.size * columns.size * rows.key_size * columns.key_size * columns.count
                    room = max(MAX_LOGITS // (logits * max(planes, 1) * len(columns_of_groups)), 1)  # in rows of tiles
                    tiles = min(room, rows.count)
                    groups = max(room // rows.count, 1)
                    for g in _slices(rows_of_groups, groups):
                        for t in _slices(range(rows.count), tiles):
                            across = slice(columns_of_groups.start, columns_of_groups.stop)
                            yield _Step(dilation, (g, across), (height, width), rows, columns, t)


def _equal_groups(size: int, dilation: int) -> list[tuple[range, int]]:
    """Groups along an axis and their pixels: the first size % dilation of them have one more."""
    longer, length = size % dilation, size // dilation
    return [(g, n) for g, n in ((range(longer), length + 1), (range(longer, dilation), length)) if g]


def _slices(indices: range, step: int) -> Iterator[slice]:
    return (slice(i, min(i + step, indices.stop)) for i in range(indices.start, indices.stop, step))


# ---- the two passes


class _Weights:
    """Attention weights of one step after another, for either pass."""

    def __init__(self, rpb: Tensor, scale: float, dropout: float, seed: int):
        self.dtype = torch.promote_types(rpb.dtype, torch.float32)  # sums of exponentials need more than half precision
        self.edge = int(rpb.shape[1]) + 1
        table = F.pad(rpb.to(self.dtype), (0, 1, 0, 1), value=-torch.inf)  # the last row and column: not seen
        self.table = table.flatten(1)  # [N, edge*edge]
        self.scale, self.dropout = scale, dropout
        self.generator = torch.Generator(rpb.device).manual_seed(seed) if dropout else None

    def places(self, step: _Step) -> Tensor:
        """Where in the table the bias of each pair stands: [Q,K]."""
        return torch.from_numpy(step.places(self.edge)).to(self.table.device)

    def __call__(self, step: _Step, q: Tensor, k: Tensor) -> Tensor:
        """Weights [*,N,Q,K] of queries [*,N,Q,D] and keys [*,N,K,D]."""
        logits = torch.matmul(q * self.scale, k.transpose(-1, -2)).to(self.dtype)
        return logits.add_(self.table[:, self.places(step)]).softmax(-1)

    def drop(self, weights: Tensor) -> Tensor | float:
        """Factors that drop some weights and raise the others; to be asked for once per step and pass, in order."""
        if not self.dropout:
            return 1.0
        kept = torch.rand(weights.shape, generator=self.generator, device=weights.device) >= self.dropout
        return kept / (1 - self.dropout)

    def apply(self, step: _Step, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The weighted sums [*,N,Q,D] of the values [*,N,K,D]."""
        if self.dropout:  # torch's own attention does not tell which weights it dropped
            weights = self(step, q, k)
            return torch.matmul((weights * self.drop(weights)).to(v.dtype), v)
        bias = self.table[:, self.places(step)].to(q.dtype)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None], scale=self.scale)


def _attend(q, k, v, rpb, size, kernel_size, dilation, scale, dropout, seed) -> Tensor:
    out = torch.zeros_like(q)
    weigh = _Weights(rpb, scale, dropout, seed)
    for step in _plan(size, kernel_size, dilation, int(q.shape[0] * q.shape[1])):
        place = step.queries(out)
        place.copy_(weigh.apply(step, *step.gather(q, k, v)).view(place.shape))
    return out


def _gradients(grad, q, k, v, rpb, out, size, kernel_size, dilation, scale, dropout, seed) -> tuple[Tensor, ...]:
    """Those of q, k, v and rpb, in float32 or float64."""
    weigh = _Weights(rpb, scale, dropout, seed)
    grad_q, grad_k, grad_v = (torch.zeros_like(x, dtype=weigh.dtype) for x in (q, k, v))
    grad_table = torch.zeros_like(weigh.table)
    for step in _plan(size, kernel_size, dilation, int(q.shape[0] * q.shape[1])):
        queries, keys, values = step.gather(q, k, v)
        upper, result = (step.queries(x).reshape(queries.shape) for x in (grad, out))
        weights = weigh(step, queries, keys)  # [*,N,Q,K]
        factors = weigh.drop(weights)
        step.add_to_keys(grad_v, torch.matmul((weights * factors).to(v.dtype).transpose(-1, -2), upper))
        # through the softmax: w * (g - sum(w * g)), and that sum is the output times its gradient
        grad_logits = torch.matmul(upper, values.transpose(-1, -2)).to(weigh.dtype) * factors
        grad_logits.sub_((upper * result).sum(-1, keepdim=True, dtype=weigh.dtype)).mul_(weights)
        grad_table.index_add_(1, weigh.places(step).flatten(), grad_logits.sum(0).flatten(1))
        grad_logits = grad_logits.mul_(scale).to(q.dtype)
        place = step.queries(grad_q)
        place.copy_(torch.matmul(grad_logits, keys).view(place.shape))
        step.add_to_keys(grad_k, torch.matmul(grad_logits.transpose(-1, -2), queries))
    return grad_q, grad_k, grad_v, grad_table.unflatten(1, (weigh.edge, weigh.edge))[:, :-1, :-1]


class _NeighborhoodAttention(torch.autograd.Function):
    """The same with a backward pass."""

    @staticmethod
    def forward(ctx: FunctionCtx, q, k, v, rpb, *settings) -> Tensor:
        out = _attend(q, k, v, rpb, *settings)
        ctx.save_for_backward(q, k, v, rpb, out)
        ctx.settings = settings
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        grads = _gradients(grad, *ctx.saved_tensors, *ctx.settings)
        needed = zip(ctx.needs_input_grad, grads, ctx.saved_tensors)
        return (*(g.to(x.dtype) if need else None for need, g, x in needed), *[None] * len(ctx.settings))
