"""How timm's models are made into feature extractors, and what can be asked of one before it has weights."""

from __future__ import annotations

import math
from collections.abc import Iterable

import timm
import torch
from torch import Tensor, nn

from mask2former.utils.errors import UserError
from mask2former.utils.text import suggest

# N batch, C channels, H W image size

# which key an argument that a model may not know comes from
_KEY_OF = {"drop_path_rate": "MODEL.TIMM.DROP_PATH_RATE", "img_size": "MODEL.TIMM.IMAGE_SIZE"}


def create_extractor(name: str, **options) -> nn.Module:
    """A timm feature extractor that takes images of any size, where timm's model can.

    Args:
        name: timm model, with or without the tag of its weights ("resnet18.a1_in1k").
        options: arguments of ``timm.create_model``.

    Raises:
        UserError: timm has no such model or tag, it gives no feature maps, or it does not know an option.
    """
    if not timm.is_model(name):
        raise UserError(
            f"MODEL.BACKBONE.NAME is 'timm/{name}', but timm {timm.__version__} has no such model."
            f"{suggest(name, timm.list_models())} `timm.list_models()` lists them."
        )
    for flexible in ({"strict_img_size": False}, {"dynamic_img_size": True}, {}):
        try:
            return timm.create_model(name, features_only=True, **options, **flexible)
        except TypeError as error:  # most models do not know these two arguments
            if not any(option in str(error) for option in flexible):
                raise UserError(_refused(name, error)) from error
        except (RuntimeError, AttributeError, AssertionError, ValueError) as error:
            if options.get("pretrained"):  # then it is about the weights
                raise
            raise UserError(_no_extractor(name, error)) from error
    raise AssertionError("the last attempt has no option that could be unknown")


def _refused(name: str, error: TypeError) -> str:
    for argument, key in _KEY_OF.items():
        if argument in str(error):
            return f"timm model '{name}' has no {argument}: leave {key} at its default."
    return f"timm model '{name}' cannot be built as a backbone: {error}."


def _no_extractor(name: str, error: Exception) -> str:
    base, _, tag = name.partition(".")
    tags = timm.list_pretrained(f"{base}.*")
    if tag and name not in tags:
        return f"timm model '{base}' has no weights '{tag}': MODEL.BACKBONE.NAME may be {tags}, each behind 'timm/'."
    return f"timm model '{name}' cannot give feature maps ({error}): choose another MODEL.BACKBONE.NAME."


class Twin:
    """A copy of an extractor on the meta device: forward and backward cost nothing, and only shapes come out.

    timm's models share no layout, so what differs between them is asked of them, not looked up in lists.

    strides   pixels per cell of each map
    channels  of each map
    indices   what ``out_indices`` calls each map: not always counted from 0
    """

    def __init__(self, name: str, **options):
        self._name = name
        with torch.device("meta"):
            self._body = create_extractor(name, **options).eval()
        info = self._body.feature_info
        self.strides: list[int] = info.reduction()
        self.channels: list[int] = info.channels()
        self.indices: list[int] = list(info.out_indices)
        self._in_channels = options["in_chans"]
        # the size that its tables, if it has any, are made for
        self._built_for = options.get("img_size") or self._body.pretrained_cfg["input_size"][-1]

    def image_rule(self) -> tuple[int, bool]:
        """(n, fixed): H and W must be multiples of n or, when fixed, both be n.

        Most need multiples of the coarsest stride. Some cut their maps into a grid of windows (MaxViT), which is made
        for one size and fits its multiples. Those with a table of positions for that size (CoAtNet, BEiT) take
        nothing else.

        Raises:
            UserError: not even that size is taken.
        """
        stride, side = math.lcm(*self.strides), self._built_for
        if self._maps(3 * stride, 5 * stride) is not None:
            return stride, False
        if self._maps(side, side) is None:
            raise UserError(
                f"timm model '{self._name}' takes neither images of {side}x{side} pixels nor of others: change "
                "MODEL.TIMM.IMAGE_SIZE or MODEL.BACKBONE.NAME."
            )
        return side, self._maps(side, 2 * side) is None

    def parameters_behind(self, maps: Iterable[int]) -> set[str]:
        """Names of the parameters that any of these maps, by position, depends on."""
        named = dict(self._body.named_parameters())
        n, fixed = self.image_rule()
        side = n if fixed else 8 * n  # some have a least size
        found = self._maps(side, side)
        gradients = torch.autograd.grad(sum(found[i].sum() for i in maps), list(named.values()), allow_unused=True)
        return {name for name, gradient in zip(named, gradients) if gradient is not None}

    def depth(self) -> int:
        """Blocks of a plain transformer."""
        return len(self._body.model.feature_info)

    def _maps(self, height: int, width: int) -> list[Tensor] | None:
        """None where an image of this size is refused, which timm does by assertions and by what torch makes of it."""
        try:
            return self._body(torch.zeros(1, self._in_channels, height, width, device="meta"))
        except (AssertionError, RuntimeError):
            return None
