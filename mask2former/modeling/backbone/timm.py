"""Any timm model that can return feature maps, as a backbone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import timm
import torch
from timm.layers import freeze_batch_norm_2d
from torch import Tensor, nn

from mask2former.modeling.backbone.shape import ShapeSpec
from mask2former.utils.errors import UserError
from mask2former.utils.text import suggest

# N batch, C channels, H W image size


class TimmBackbone(nn.Module):
    """Maps {"res2": [N,C,H/4,W/4], ...} of an image [N,3,H,W]; ``res{n}`` is timm's map of stride 2**n.

    name          timm model name, e.g. "convnext_tiny"
    out_features  which maps, finest first
    norm          "" keeps timm's norms, "FrozenBN" turns its batch norms into fixed affine maps
    freeze_at     n > 0 freezes all that the map of stride 2**n depends on

    Weights are random: a local file is loaded through ``MODEL.TIMM.WEIGHTS`` by the engine.
    """

    def __init__(
        self,
        name: str,
        *,
        in_channels: int = 3,
        out_features: Sequence[str] = ("res2", "res3", "res4", "res5"),
        norm: str = "",
        freeze_at: int = 0,
    ):
        super().__init__()
        if not timm.is_model(name):
            raise UserError(
                f"MODEL.BACKBONE.NAME is 'timm/{name}', but timm {timm.__version__} has no such model."
                f"{suggest(name, timm.list_models())} `timm.list_models()` lists them."
            )
        self.in_channels = in_channels
        index = _indices(name, out_features)
        self.name = name
        self.body = _create(name, out_indices=tuple(index.values()), in_chans=in_channels)
        # timm's transformers may answer with channels last, and say so
        self._channels_last = str(getattr(self.body, "output_fmt", "NCHW")).endswith("NHWC")
        info = self.body.feature_info
        self._shapes = {f: ShapeSpec(c, s) for f, c, s in zip(index, info.channels(), info.reduction())}
        if norm not in ("", "FrozenBN"):
            raise UserError(f"MODEL.TIMM.NORM is '{norm}': expected '' (as timm builds it) or 'FrozenBN'.")
        if norm == "FrozenBN":
            freeze_batch_norm_2d(self.body)
        if freeze_at > 0:
            self._freeze(freeze_at)

    def _freeze(self, freeze_at: int) -> None:
        """Freeze every parameter that the coarsest map of stride 2**freeze_at or finer depends on."""
        below = [i for i, s in enumerate(self._shapes.values()) if s.stride <= 2**freeze_at]
        if not below:
            raise UserError(
                f"MODEL.BACKBONE.FREEZE_AT is {freeze_at}, but the finest map taken from this timm model has stride "
                f"{min(s.stride for s in self._shapes.values())}: use 0 to train everything."
            )
        parameters = list(self.body.parameters())
        # which parameters a map depends on is asked of autograd: timm's models share no layout
        maps = self.body.eval()(torch.zeros(1, self.in_channels, 256, 256))
        gradients = torch.autograd.grad(sum(maps[i].sum() for i in below), parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients):
            parameter.requires_grad_(gradient is None)
        self.body.train()
        for parent in list(self.body.modules()):
            for name, child in parent.named_children():
                if isinstance(child, nn.BatchNorm2d) and not child.weight.requires_grad:
                    setattr(parent, name, freeze_batch_norm_2d(child))

    def output_shape(self) -> dict[str, ShapeSpec]:
        return dict(self._shapes)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Raises UserError when this timm model cannot take images of this size."""
        try:
            maps = self.body(x)
        except AssertionError as error:  # how timm refuses a size
            raise UserError(
                f"timm model '{self.name}' cannot take images of {tuple(x.shape[-2:])} pixels ({error}): "
                "choose another MODEL.BACKBONE.NAME or image size."
            ) from error
        if self._channels_last:
            maps = [m.permute(0, 3, 1, 2) for m in maps]
        return dict(zip(self._shapes, maps))


def _create(name: str, **kwargs) -> nn.Module:
    """A randomly initialised feature extractor that takes images of any size, where timm's model can."""
    for flexible in ({"strict_img_size": False}, {"dynamic_img_size": True}, {}):
        try:
            return timm.create_model(name, pretrained=False, features_only=True, **kwargs, **flexible)
        except TypeError as error:  # most models do not know these two arguments
            if not any(option in str(error) for option in flexible):
                raise UserError(f"timm model '{name}' cannot be built as a backbone: {error}.") from error
        except (RuntimeError, AttributeError) as error:
            raise UserError(
                f"timm model '{name}' gives no feature maps ({error}): choose another MODEL.BACKBONE.NAME."
            ) from error
    raise AssertionError("the last attempt has no option that could be unknown")


def _indices(name: str, out_features: Sequence[str]) -> dict[str, int]:
    """Which of timm's outputs each wanted map is, in timm's order: {"res2": 1, ...}.

    Of several maps of one stride the last, deepest one is meant; strides that are no power of two have no name.
    """
    with torch.device("meta"):
        reductions = _create(name).feature_info.reduction()
    available = {f"res{int(math.log2(r))}": i for i, r in enumerate(reductions) if math.log2(r).is_integer()}
    missing = [f for f in out_features if f not in available]
    if missing:
        raise UserError(
            f"timm model '{name}' has no map {missing} (its strides are {reductions}): "
            f"MODEL.TIMM.OUT_FEATURES may name {sorted(available)}."
        )
    return {f: available[f] for f in sorted(out_features, key=available.get)}
