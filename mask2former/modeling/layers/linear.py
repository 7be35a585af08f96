"""Linear layers over many rows, by a faster kernel on the CPU, and feed-forward nets of two."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from mask2former.modeling.layers import onednn

# R rows: pixels of all images; C channels

_MANY_ROWS = 512  # below, reordering the weights costs more than the kernel gains
_HIDDEN_BYTES = 4 << 20  # of a feed-forward net's hidden rows for each thread, so that they stay in its cache


class Linear(nn.Linear):
    """nn.Linear through `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear``: x [...,C], weight [D,C], bias [D] -> [...,D].

    On the CPU, many rows go through oneDNN's 1x1 convolution over channels-last pixels. It is the same product, but
    adds the bias on the way instead of filling the result with it first, and uses AVX-512 on every maker's processors.
    """
    if not _by_convolution(x, weight):
        return F.linear(x, weight, bias)
    pixels = x.contiguous().view(1, 1, -1, x.shape[-1]).permute(0, 3, 1, 2)
    out = F.conv2d(pixels, weight[:, :, None, None], bias)
    return out.permute(0, 2, 3, 1).reshape(*x.shape[:-1], len(weight))


def feed_forward(
    x: Tensor,
    first: nn.Linear,
    second: nn.Linear,
    activation: Callable[[Tensor], Tensor],
    drop: nn.Dropout,
    keep_hidden: bool = True,
) -> Tensor:
    """``second(drop(activation(first(x))))``; without ``keep_hidden`` computed again in the backward pass.

    On the CPU some rows are computed after the other, in both passes: the hidden maps of large images would be the
    largest of the model, and new memory costs more time there than the products that fill it.
    """
    if _by_convolution(x, first.weight) and not (drop.training and drop.p > 0) and _plain(first) and _plain(second):
        rows = _HIDDEN_BYTES * torch.get_num_threads() // (first.out_features * x.element_size())
        return _InPortions.apply(
            activation, max(_MANY_ROWS, rows), x, first.weight, first.bias, second.weight, second.bias
        )

    def net(rows: Tensor) -> Tensor:
        return second(drop(activation(first(rows))))

    if keep_hidden or not torch.is_grad_enabled():
        return net(x)
    return checkpoint(net, x, use_reentrant=False)


def _plain(layer: nn.Linear) -> bool:
    """Whether the weights tell all that the layer does: pruned, hooked and derived ones are called."""
    return type(layer) is Linear and not layer._forward_hooks and not layer._forward_pre_hooks


class _InPortions(torch.autograd.Function):
    """Two linear layers, some rows of [...,C] at a time; keeps its input alone and runs again in the backward pass."""

    @staticmethod
    def forward(
        ctx, activation: Callable[[Tensor], Tensor], portion: int, x: Tensor, *parameters: Tensor | None
    ) -> Tensor:
        ctx.activation, ctx.portion = activation, portion
        ctx.save_for_backward(x, *parameters)
        parts = [_two_layers(rows, activation, *parameters) for rows in x.flatten(0, -2).split(portion)]
        return torch.cat(parts).view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *parameters = ctx.saved_tensors
        wanted = [p for p in parameters if p is not None and p.requires_grad]
        totals, entry_grads = [torch.zeros_like(p) for p in wanted], []
        for rows, rows_grad in zip(*(t.flatten(0, -2).split(ctx.portion) for t in (x, grad))):
            with torch.enable_grad():
                rows = rows.detach().requires_grad_()
                out = _two_layers(rows, ctx.activation, *parameters)
            entry_grad, *grads = torch.autograd.grad(out, (rows, *wanted), rows_grad)
            entry_grads.append(entry_grad)
            for total, part in zip(totals, grads):
                total += part
        found = iter(totals)
        of_parameters = [next(found) if p is not None and p.requires_grad else None for p in parameters]
        return None, None, torch.cat(entry_grads).view_as(x), *of_parameters


def _two_layers(
    rows: Tensor,
    activation: Callable[[Tensor], Tensor],
    weight: Tensor,
    bias: Tensor | None,
    next_weight: Tensor,
    next_bias: Tensor | None,
) -> Tensor:
    return linear(activation(linear(rows, weight, bias)), next_weight, next_bias)


def _by_convolution(x: Tensor, weight: Tensor) -> bool:
    return x.numel() >= max(1, _MANY_ROWS * x.shape[-1]) and weight.dtype == torch.float32 and onednn.usable(x)


class Mlp(nn.Module):
    """The feed-forward net of vision transformers, [...,C] -> [...,C], under its usual names; ``drop`` is a rate."""

    def __init__(self, channels: int, hidden_channels: int, drop: float):
        super().__init__()
        self.fc1 = Linear(channels, hidden_channels)
        self.fc2 = Linear(hidden_channels, channels)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(feed_forward(x, self.fc1, self.fc2, F.gelu, self.drop))
