"""A first convolution trained on colour images, for images of other channels."""

from __future__ import annotations

import torch
from timm.models import adapt_input_conv

from mask2former.checkpoint.report import Adapted

_COLOURS = 3  # channels of the images that published weights were trained on

# O channels out, k kernel size


def adapt_input_channels(
    weights: dict[str, torch.Tensor], own: dict[str, torch.Tensor], in_channels: int
) -> tuple[dict[str, torch.Tensor], tuple[Adapted, ...]]:
    """Make convolutions [O,3,k,k] of a file fit a model whose own are [O,in_channels,k,k]; others stay as they are.

    As timm does: channels are repeated in their order and scaled by 3 / in_channels, so that the responses keep
    their size; for one channel they are added up, as a grey image has the same value in all three.

    Returns:
        The weights with these exchanged, and what was changed, for the report.
    """
    result, adapted = dict(weights), []
    how = "channels added up" if in_channels == 1 else "channels repeated and scaled"
    for name in own:
        if name in weights and is_input_of_colours(weights[name], own[name], in_channels):
            result[name] = adapt_input_conv(in_channels, weights[name])
            adapted.append(Adapted(name, tuple(weights[name].shape), tuple(own[name].shape), how))
    return result, tuple(adapted)


def is_input_of_colours(theirs: torch.Tensor, ours: torch.Tensor, in_channels: int) -> bool:
    """Whether these are kernels of one convolution, of which theirs is for colours and ours for other channels."""
    if theirs.ndim != 4 or theirs.shape[1] != _COLOURS or in_channels == _COLOURS:
        return False
    return ours.shape == (theirs.shape[0], in_channels, *theirs.shape[2:])
