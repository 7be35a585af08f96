"""Any timm model that can return feature maps, as a backbone; plain vision transformers through a pyramid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch.nn.functional as F
from timm.layers import freeze_batch_norm_2d
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn

from mask2former.modeling.backbone.shape import ShapeSpec
from mask2former.modeling.backbone.simple_pyramid import SimpleFeaturePyramid
from mask2former.modeling.backbone.stages import STAGES
from mask2former.modeling.backbone.timm_twin import Twin, create_extractor
from mask2former.utils.errors import UserError

# N batch, C channels, H W image size


class TimmBackbone(nn.Module):
    """Maps images [N,C,H,W] to {"res2": [N,C2,ceil(H/4),ceil(W/4)], ...}; ``res{n}`` has stride 2**n.

    name          timm model name, e.g. "convnext_tiny"
    in_channels   C
    out_features  which maps, finest first
    norm          "" keeps timm's norms, "FrozenBN" turns its batch norms into fixed affine maps
    freeze_at     n > 0 freezes all that the map of stride 2**n depends on. Plain transformers, whose maps depend on
                  everything: n = 1 freezes patch embedding, positions and extra tokens, n the first n-1 blocks, too
    drop_path     probability of dropping a residual branch, growing to this with the depth; 0: as timm builds it
    image_size    side of the images that models of one fixed size are built for; 0: timm's

    Images are padded with zeros right and below to what the model can take, and the maps cut back.

    A plain transformer gives one map. It goes, after the transformer's own last norm, through a simple feature
    pyramid. Where its patches are not 8, 16 or 32 pixels wide, the image is resized so that one of them covers that
    many pixels: 14-pixel patches see the image at 14/16 of its size. So map cells and promised strides agree
    exactly at any size, without resampling features over padding, and weights need no change; who wants the detail
    back trains at 16/14 of the size.

    Weights are random until ``MODEL.TIMM.WEIGHTS`` is loaded by the engine.
    """

    def __init__(
        self,
        name: str,
        *,
        in_channels: int = 3,
        out_features: Sequence[str] = STAGES,
        norm: str = "",
        freeze_at: int = 0,
        drop_path: float = 0.0,
        image_size: int = 0,
    ):
        super().__init__()
        if norm not in ("", "FrozenBN"):
            raise UserError(f"MODEL.TIMM.NORM is '{norm}': expected '' (as timm builds it) or 'FrozenBN'.")
        self.name = name
        self.in_channels = in_channels
        self._options = {"in_chans": in_channels}
        self._options |= {"drop_path_rate": drop_path} if drop_path else {}
        self._options |= {"img_size": image_size} if image_size else {}
        every = Twin(name, **self._options)
        plain = len(set(every.strides)) == 1
        if plain:  # the last map only, with the transformer's last norm
            strides = _pyramid_strides(out_features)
            self._options |= {"out_indices": (-1,), "feature_cls": partial(FeatureGetterNet, norm=True)}
        else:
            positions = _positions(name, every.strides, out_features)
            self._options |= {"out_indices": tuple(every.indices[i] for i in positions.values())}
        twin = Twin(name, **self._options)
        self._side, self._fixed = twin.image_rule()
        self._scale = (1, 1)  # so many pixels of an image are seen as so many by the model
        self.body = self.create_body()
        # timm's transformers may answer with channels last, and say so
        self._channels_last = str(getattr(self.body, "output_fmt", "NCHW")).endswith("NHWC")
        self.pyramid = None
        if plain:
            self._add_pyramid(twin, strides)
        else:
            self._shapes = {f: ShapeSpec(c, s) for f, c, s in zip(positions, twin.channels, twin.strides)}
        if norm == "FrozenBN":
            freeze_batch_norm_2d(self.body)
        behind = twin.parameters_behind(range(len(twin.strides)))
        frozen = self._plain_below(freeze_at) if plain else self._below(freeze_at, twin)
        # what no map depends on would wait for gradients in vain, which distributed training refuses
        self._freeze({n for n, _ in self.body.named_parameters() if n in frozen or n not in behind})

    def _add_pyramid(self, twin: Twin, strides: dict[str, int]) -> None:
        (patch,), (channels,) = twin.strides, twin.channels
        stride = 2 ** round(math.log2(patch))
        self._scale = (stride, patch)
        self._side = self._side // patch * stride
        self.pyramid = SimpleFeaturePyramid(channels, stride, strides)
        self._shapes = {f: ShapeSpec(self.pyramid.out_channels, s) for f, s in strides.items()}

    def create_body(self, **options) -> nn.Module:
        """timm's part of this backbone, anew; options as ``pretrained`` of ``timm.create_model``, with its errors."""
        return create_extractor(self.name, **self._options, **options)

    def output_shape(self) -> dict[str, ShapeSpec]:
        return dict(self._shapes)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Raises UserError when this timm model cannot take images of this size."""
        image_size = x.shape[-2:]
        x = self._pad(x)
        padded_size = x.shape[-2:]
        maps = self.body(self._resize(x))
        if self._channels_last:
            maps = [m.permute(0, 3, 1, 2) for m in maps]
        maps = dict(zip(self._shapes, maps)) if self.pyramid is None else self.pyramid(maps[0])
        result = {}
        for name, m in maps.items():
            size = _cells(padded_size, self._shapes[name].stride)
            if m.shape[-2:] != size:  # a few CNNs lose or add border cells: Inception, MobileViT
                m = F.interpolate(m, size=size, mode="bilinear", align_corners=False)
            height, width = _cells(image_size, self._shapes[name].stride)
            result[name] = m[..., :height, :width]
        return result

    def _pad(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if self._fixed and max(height, width) > self._side:
            raise UserError(
                f"timm model '{self.name}' is built for images of up to {self._side}x{self._side} pixels, found "
                f"{height}x{width}: raise MODEL.TIMM.IMAGE_SIZE, or choose a MODEL.BACKBONE.NAME that takes any size."
            )
        return F.pad(x, (0, -width % self._side, 0, -height % self._side))

    def _resize(self, x: Tensor) -> Tensor:
        """So that a patch covers a power of two of the image's pixels."""
        pixels, seen = self._scale
        if pixels == seen:
            return x
        size = [side // pixels * seen for side in x.shape[-2:]]
        return F.interpolate(x, size=size, mode="bilinear", align_corners=False)

    def _below(self, freeze_at: int, twin: Twin) -> set[str]:
        """Parameters that the maps of stride 2**freeze_at or finer depend on."""
        if freeze_at <= 0:
            return set()
        below = [i for i, stride in enumerate(twin.strides) if stride <= 2**freeze_at]
        if not below:
            raise UserError(
                f"MODEL.BACKBONE.FREEZE_AT is {freeze_at}, but the finest map taken from this timm model has stride "
                f"{min(twin.strides)}: use 0 to train everything."
            )
        return twin.parameters_behind(below)

    def _plain_below(self, freeze_at: int) -> set[str]:
        """Parameters up to the block before ``freeze_at``, counted from 1; of all beyond the last."""
        if freeze_at <= 0:
            return set()
        names = {name for name, _ in self.body.named_parameters()}
        options = {**self._options, "feature_cls": FeatureGetterNet}
        first = Twin(self.name, **options | {"out_indices": (0,)})
        if freeze_at > first.depth():
            return names
        if freeze_at == 1:
            return {n for n in first.parameters_behind([0]) if not n.startswith("model.blocks.")}
        return Twin(self.name, **options | {"out_indices": (freeze_at - 2,)}).parameters_behind([0])

    def _freeze(self, names: set[str]) -> None:
        for name, parameter in self.body.named_parameters():
            parameter.requires_grad_(name not in names)
        for parent in list(self.body.modules()):
            for name, child in parent.named_children():
                if isinstance(child, nn.BatchNorm2d) and not any(p.requires_grad for p in child.parameters()):
                    setattr(parent, name, freeze_batch_norm_2d(child))


def _cells(size: Sequence[int], stride: int) -> tuple[int, int]:
    """Cells of a map of this stride that cover an image."""
    height, width = (-(-side // stride) for side in size)
    return height, width


def _pyramid_strides(out_features: Sequence[str]) -> dict[str, int]:
    """Strides of the maps wanted of a pyramid, finest first: {"res2": 4, ...}."""
    strides = {stage: 4 * 2**i for i, stage in enumerate(STAGES)}
    unknown = [f for f in out_features if f not in strides]
    if unknown or not out_features:
        raise UserError(f"MODEL.TIMM.OUT_FEATURES is {list(out_features)}: expected a choice of {list(STAGES)}.")
    return {f: s for f, s in strides.items() if f in out_features}


def _positions(name: str, strides: Sequence[int], out_features: Sequence[str]) -> dict[str, int]:
    """Where among timm's outputs each wanted map stands, in timm's order: {"res2": 1, ...}.

    Of several maps of one stride the last, deepest one is meant; strides that are no power of two have no name.
    """
    available = {f"res{int(math.log2(s))}": i for i, s in enumerate(strides) if math.log2(s).is_integer()}
    missing = [f for f in out_features if f not in available]
    if missing:
        choice = f"MODEL.TIMM.OUT_FEATURES may name {sorted(available)}" if available else "it cannot be used"
        raise UserError(f"timm model '{name}' has no map {missing} (its strides are {strides}): {choice}.")
    return {f: available[f] for f in sorted(out_features, key=available.get)}
