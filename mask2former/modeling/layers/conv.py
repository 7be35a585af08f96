"""Convolution with its norm inside, under the published tensor names, and the norms by recipe name."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from mask2former.modeling.layers import onednn
from mask2former.modeling.layers.folded import Folded
from mask2former.modeling.layers.group_norm import GroupNorm
from mask2former.modeling.layers.plain import is_plain
from mask2former.ops import winograd
from mask2former.utils.errors import UserError

# N batch, C channels, H W map size


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
            x = self.folded().differentiable(x)
        else:
            x = self._unfolded(x)
            if type(self.norm) is GroupNorm and is_plain(self.norm) and self.activation in (F.relu, F.relu_):
                return self.norm(x, relu=True)  # in one pass
            if self.norm is not None:
                x = self.norm(x)
        return x if self.activation is None else self.activation(x)

    def _unfolded(self, x: Tensor) -> Tensor:
        """The convolution alone."""
        if self._zeros_around and winograd.usable(x, self.weight, *self._geometry):
            return Folded(self.weight, None, self.bias, *self._geometry).differentiable(x)
        return super().forward(x)

    @property
    def _geometry(self) -> tuple:
        return self.stride, self.padding, self.dilation, self.groups

    @property
    def _zeros_around(self) -> bool:
        """Whether the padding is so many zeros, told by numbers."""
        return self.padding_mode == "zeros" and not isinstance(self.padding, str)

    def folds(self, x: Tensor) -> bool:
        """Whether the norm is multiplied into the weights for this input."""
        if self.norm is None or not is_plain(self.norm) or not self._zeros_around:
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
        return Folded(self.weight, scale, shift, *self._geometry)


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
