"""Linear layers over many rows, by a faster kernel on the CPU, and feed-forward nets of two."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from mask2former.modeling.layers import onednn
from mask2former.modeling.layers.plain import is_plain

# R rows: pixels of all images; C channels

_MANY_ROWS = 512  # below, reordering the weights costs more than the kernel gains
_HIDDEN_BYTES = 6 << 20  # of a feed-forward net's hidden rows for each thread; products of fewer are slower


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
    out = F.conv2d(_pixels(x.contiguous()), weight[:, :, None, None], bias)
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
    return type(layer) is Linear and is_plain(layer)


class _InPortions(torch.autograd.Function):
    """Two linear layers, some rows of [...,C] at a time; keeps its input alone and runs again in the backward pass.

    The second layer's product is not needed again there, and gradients are added up where they are made: automatic
    differentiation would do neither.
    """

    @staticmethod
    def forward(
        ctx, activation: Callable[[Tensor], Tensor], portion: int, x: Tensor, *parameters: Tensor | None
    ) -> Tensor:
        ctx.activation, ctx.portion = activation, portion
        weight, bias, next_weight, next_bias = parameters
        ctx.save_for_backward(x, weight, bias, next_weight)
        parts = [
            linear(_hidden(rows, weight, bias, activation), next_weight, next_bias) for rows in _portions(x, portion)
        ]
        return _joined(parts).view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *parameters = ctx.saved_tensors
        wanted = ctx.needs_input_grad[2:]
        entry_grads, totals = [], [None] * 4
        for rows, part in zip(_portions(x, ctx.portion), _portions(grad, ctx.portion)):
            entry_grad, *found = _grads(part, rows, *parameters, ctx.activation, wanted)
            entry_grads.append(entry_grad)
            totals = [new if total is None else total.add_(new) for total, new in zip(totals, found)]
        return None, None, _joined(entry_grads).view_as(x) if wanted[0] else None, *totals


def _grads(
    grad: Tensor,
    rows: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    next_weight: Tensor,
    activation: Callable[[Tensor], Tensor],
    wanted: tuple[bool, ...],
) -> list[Tensor | None]:
    """Gradients of rows, both weights and their biases, given the second layer's; None where not wanted."""
    hidden, pull = _activated(rows, weight, bias, activation)
    of_next = _parameter_grads(grad, hidden, next_weight, *wanted[3:])
    if not any(wanted[:3]):
        return [None, None, None, *of_next]
    hidden_grad = pull(_entry_grad(grad, hidden, next_weight))
    entry_grad = _entry_grad(hidden_grad, rows, weight) if wanted[0] else None
    return [entry_grad, *_parameter_grads(hidden_grad, rows, weight, *wanted[1:3]), *of_next]


def linears_of_sum(x: Tensor, shift: Tensor, *layers: nn.Linear) -> tuple[Tensor, ...]:
    """``layer(x + shift)`` of each, x [...,S,C] and shift [S,C]; the sum is computed again in the backward pass.

    x and a shift that others add too are kept anyway, so that the CPU, where it can, keeps no map of these layers.
    """
    fits = x.shape[-shift.dim() :] == shift.shape and shift.dtype == x.dtype
    if fits and torch.is_grad_enabled() and all(_plain(layer) and _by_convolution(x, layer.weight) for layer in layers):
        return _OfSum.apply(x, shift, *(p for layer in layers for p in (layer.weight, layer.bias)))
    total = x + shift
    return tuple(layer(total) for layer in layers)


class _OfSum(torch.autograd.Function):
    """Linear layers of one sum of two tensors, which it keeps instead."""

    @staticmethod
    def forward(ctx, x: Tensor, shift: Tensor, *parameters: Tensor | None) -> tuple[Tensor, ...]:
        ctx.save_for_backward(x, shift, *parameters[::2])
        total = x + shift
        return tuple(linear(total, weight, bias) for weight, bias in zip(parameters[::2], parameters[1::2]))

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, shift, *weights = ctx.saved_tensors
        of_x, of_shift, *wanted = ctx.needs_input_grad
        rows, entry_grad, found = (x + shift).flatten(0, -2), None, []
        for i, (grad, weight) in enumerate(zip(grads, weights)):
            grad = grad.flatten(0, -2).contiguous()
            found += _parameter_grads(grad, rows, weight, *wanted[2 * i : 2 * i + 2])
            if of_x or of_shift:
                part = _entry_grad(grad, rows, weight)
                entry_grad = part if entry_grad is None else entry_grad.add_(part)
        if entry_grad is None:
            return None, None, *found
        images = entry_grad.view(-1, *shift.shape)
        # a sum over one image is slow, and both gradients may be written over
        shift_grad = (images[0].clone() if len(images) == 1 else images.sum(0)) if of_shift else None
        return entry_grad.view_as(x) if of_x else None, shift_grad, *found


def _portions(x: Tensor, portion: int) -> tuple[Tensor, ...]:
    """The rows of x [...,C], at most ``portion`` at a time and about as many each time."""
    rows = x.flatten(0, -2).contiguous()
    return rows.tensor_split(-(-len(rows) // portion))


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _hidden(rows: Tensor, weight: Tensor, bias: Tensor | None, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """``activation(linear(rows))``. ReLU's is not left to oneDNN's kernel, where it would turn NaN into zero."""
    product = linear(rows, weight, bias)
    return product.relu_() if activation is F.relu else activation(product)


def _activated(
    rows: Tensor, weight: Tensor, bias: Tensor | None, activation: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """What `_hidden` gives, and what turns its gradient into the product's; ReLU's overwrites what it is given."""
    if activation is F.relu:
        hidden = _hidden(rows, weight, bias, activation)
        return hidden, lambda grad: torch.ops.aten.threshold_backward.grad_input(grad, hidden, 0, grad_input=grad)
    with torch.enable_grad():
        product = linear(rows, weight, bias).detach().requires_grad_()
        hidden = activation(product)
    return hidden.detach(), lambda grad: torch.autograd.grad(hidden, product, grad)[0]


def _entry_grad(grad: Tensor, rows: Tensor, weight: Tensor) -> Tensor:
    """Gradient [R,C] of a linear layer's rows, given that [R,D] of its output."""
    return _convolution_grads(grad, rows, weight, (True, False, False))[0].permute(0, 2, 3, 1).view_as(rows)


def _parameter_grads(grad: Tensor, rows: Tensor, weight: Tensor, of_weight: bool, of_bias: bool) -> list[Tensor | None]:
    """Gradients of a linear layer's weight and bias; the convolution's own way to the bias takes a fifth longer."""
    found = _convolution_grads(grad, rows, weight, (False, True, False))[1].view_as(weight) if of_weight else None
    return [found, grad.sum(0) if of_bias else None]


def _convolution_grads(grad: Tensor, rows: Tensor, weight: Tensor, which: tuple[bool, bool, bool]) -> tuple:
    return torch.ops.aten.convolution_backward(
        _pixels(grad), _pixels(rows), weight[:, :, None, None], None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, which
    )


def _pixels(rows: Tensor) -> Tensor:
    """Contiguous rows [...,C] as a channels-last image [1,C,1,R]."""
    return rows.view(1, 1, -1, rows.shape[-1]).permute(0, 3, 1, 2)


def _by_convolution(x: Tensor, weight: Tensor) -> bool:
    """Whether rows x [...,C] and weight [D,C] are multiplied as oneDNN's convolution."""
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
