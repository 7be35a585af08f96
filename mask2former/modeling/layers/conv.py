"""Convolution with its norm inside, under the published tensor names, and the norms by recipe name."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torchvision.ops import FrozenBatchNorm2d

from mask2former.modeling.layers import onednn
from mask2former.modeling.layers.convolution import convolution, convolution_backward
from mask2former.utils.errors import UserError

# N batch, C channels, H W map size

_SQUARES = 1 << 19  # made at a time, so that they stay in the cache


class FrozenBatchNorm(FrozenBatchNorm2d):
    """torchvision's FrozenBatchNorm2d that answers in the precision of its input, and can replace trained norms."""

    def forward(self, x: Tensor) -> Tensor:
        # under autocast the maps stay in half precision; scale and shift are made in full
        scale, shift = (v.to(x.dtype)[:, None, None] for v in scale_and_shift(self))
        return torch.addcmul(shift, x, scale)  # one pass, and no map is kept for the backward pass

    @classmethod
    def freeze(cls, module: nn.Module) -> nn.Module:
        """Replace every batch norm below ``module`` (itself included) by a frozen one with the same numbers."""
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            frozen = cls(module.num_features, eps=module.eps).to(module.running_mean)
            frozen.load_state_dict({name: getattr(module, name) for name in frozen.state_dict()})
            return frozen
        for name, child in module.named_children():
            module.add_module(name, cls.freeze(child))
        return module


class GroupNorm(nn.GroupNorm):
    """nn.GroupNorm that is accurate, and fast on the CPU, for channels-last maps too; it overwrites its input.

    torch's kernel for them takes E[x^2] - E[x]^2 for the variance, with which 8 of 24 bits can be lost. The result
    does not depend on what is subtracted from a whole group, nor does the gradient.
    """

    def forward(self, x: Tensor) -> Tensor:
        ours = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and x.numel()
        if not ours or not x.is_contiguous(memory_format=torch.channels_last):
            return super().forward(x)
        x = x.sub_(self._per_group(x.detach().mean((2, 3))))
        if torch.is_grad_enabled():
            return super().forward(x)
        rows = max(1, _SQUARES // x[:, :, 0].numel())
        squares = sum(part.square().sum((2, 3)) for part in x.split(rows, 2))
        deviation = self._per_group(squares / x[0, 0].numel()).add(self.eps).sqrt()
        return torch.addcmul(self.bias[:, None, None], x, self.weight[:, None, None] / deviation, out=x)

    def _per_group(self, values: Tensor) -> Tensor:
        """The mean of each group of values [N,C], for each of its channels, [N,C,1,1]."""
        mean = values.unflatten(1, (self.num_groups, -1)).mean(2)
        return mean.repeat_interleave(self.num_channels // self.num_groups, 1)[:, :, None, None]


def scale_and_shift(norm: FrozenBatchNorm | nn.modules.batchnorm._BatchNorm) -> tuple[Tensor, Tensor]:
    """What a batch norm with fixed statistics multiplies each channel by, and what it then adds, [C] each."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return scale, norm.bias - norm.running_mean * scale


def _is_fixed(norm: nn.Module | None) -> bool:
    """Whether a norm is the same affine map of each channel for every input."""
    if isinstance(norm, nn.modules.batchnorm._BatchNorm):
        return not norm.training and norm.affine and norm.running_mean is not None
    return isinstance(norm, FrozenBatchNorm)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "FrozenBN": FrozenBatchNorm,
    "BN": nn.BatchNorm2d,
    "SyncBN": nn.SyncBatchNorm,
    "GN": lambda channels: GroupNorm(32, channels),
}


def build_norm(name: str, channels: int) -> nn.Module | None:
    """The norm a recipe names (FrozenBN, BN, SyncBN, GN); None for the empty name."""
    if not name:
        return None
    if name not in NORMS:
        raise UserError(f"unknown norm '{name}': expected one of {sorted(NORMS)} or '' for none.")
    if name == "GN" and channels % 32:
        raise UserError(f"norm 'GN' has 32 groups and cannot divide {channels} channels: use a multiple of 32.")
    return NORMS[name](channels)


class Conv2d(nn.Conv2d):
    """nn.Conv2d followed by an optional norm, stored as its child ``norm``, and an optional activation.

    A norm with fixed statistics is multiplied into the weights: the same result without a pass over the map.
    """

    def __init__(self, *args, norm: nn.Module | None = None, activation: Callable | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.norm = norm
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        if self.folds(x):
            x = _FoldedConvolution.apply(x, *self.folded()) if torch.is_grad_enabled() else self.folded()(x)
        else:
            x = super().forward(x)
            if self.norm is not None:
                x = self.norm(x)
        return x if self.activation is None else self.activation(x)

    def folds(self, x: Tensor) -> bool:
        """Whether the norm is multiplied into the weights for this input."""
        if (
            self.norm is None
            or not is_plain(self.norm)
            or self.padding_mode != "zeros"
            or isinstance(self.padding, str)
        ):
            return False
        if not torch.is_grad_enabled():
            return _is_fixed(self.norm)
        device = x.device.type
        # half precision would round weights that the norm has scaled, not those that were trained
        half = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        return isinstance(self.norm, FrozenBatchNorm) and self.bias is None and not half and not onednn.traced()

    def only_folds(self, x: Tensor) -> bool:
        """Whether for this input the module is its folded convolution and nothing else."""
        return self.folds(x) and self.activation is None and type(self) is Conv2d and is_plain(self)

    def folded(self) -> Folded:
        """The convolution and its norm, which must have fixed statistics, as one convolution."""
        scale, shift = scale_and_shift(self.norm)
        shift = shift if self.bias is None else shift + self.bias * scale
        return Folded(self.weight, scale, shift, self.stride, self.padding, self.dilation, self.groups)


def is_plain(module: nn.Module) -> bool:
    """Whether its class and weights tell all that the module does: hooked and patched ones must be called."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return not any(hooks) and "forward" not in vars(module)


class Folded(NamedTuple):
    """A convolution by ``scale * weight``, then ``+ shift``; weight [D,C,k,k], scale and shift [D]."""

    weight: Tensor
    scale: Tensor
    shift: Tensor
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    @property
    def geometry(self) -> tuple:
        return self[3:]

    def __call__(self, x: Tensor, **after) -> Tensor:
        """Of x [N,C,H,W]; after: what follows, as in :func:`convolution`. Outside of autograd."""
        return convolution(x, self.weight, self.shift, *self.geometry, scale=self.scale, **after)

    def backward(
        self, grad: Tensor | None, x: Tensor, wanted: tuple[bool, bool], onto: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of x and weight as far as wanted; the rest as in :func:`convolution_backward`."""
        wanted = (*wanted, False)
        return convolution_backward(grad, x, self.weight, *self.geometry, wanted, scale=self.scale, onto=onto)[:2]


class _FoldedConvolution(torch.autograd.Function):
    """A folded convolution: scaled again in the backward pass, as a ResNet-50's weights would be 94 MB to keep."""

    @staticmethod
    def forward(ctx, x: Tensor, *folded) -> Tensor:
        folded = Folded(*folded)
        ctx.save_for_backward(x, *folded[:3])
        ctx.geometry = folded.geometry
        return folded(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *folded = ctx.saved_tensors
        return *Folded(*folded, *ctx.geometry).backward(grad, x, ctx.needs_input_grad[:2]), *[None] * 6


def init_msra(conv: nn.Conv2d) -> nn.Conv2d:
    """He et al. (ICCV 2015) normal initialisation by fan-out, bias zero."""
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return _zero_bias(conv)


def init_xavier(layer: nn.Conv2d) -> nn.Conv2d:
    """Uniform initialisation by fan-in with variance 1 / fan_in (Caffe's Xavier filler), bias zero."""
    nn.init.kaiming_uniform_(layer.weight, a=1)
    return _zero_bias(layer)


def _zero_bias(layer: nn.Conv2d) -> nn.Conv2d:
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def conv_norm(
    in_channels: int, channels: int, kernel: int, *, norm: str, activation: Callable[[Tensor], Tensor] | None
) -> Conv2d:
    """A convolution that keeps the size, with the norm a recipe names, or else a bias."""
    built = build_norm(norm, channels)
    return init_xavier(
        Conv2d(
            in_channels,
            channels,
            kernel,
            padding=kernel // 2,
            bias=built is None,
            norm=built,
            activation=activation,
        )
    )


def freeze(module: nn.Module) -> nn.Module:
    """Stop training of a module: no gradients, and its batch norms become fixed affine maps."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    with torch.no_grad():
        return FrozenBatchNorm.freeze(module)
