"""A training step: forward, losses, backward, update by fused AdamW."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from _benchmarks.contest import MILLISECONDS, Call, Contest
from _benchmarks.models import (
    SMALL_DECODER,
    Recipe,
    draw_image,
    has_transformers,
    hugging_face,
    normalised,
    with_torch_ops,
)
from _benchmarks.pictures import draw_segments
from _benchmarks.setting import Setting
from mask2former.structures import Instances

# N targets, H W image size

TARGETS = 10
TOLERANCE = 0.05  # of the sum of all losses; mask losses are taken at random points
STEPS = 3  # while memory is measured: AdamW's state comes with the first


def contests(setting: Setting) -> Iterator[Contest]:
    """R50 at 512x512 beside Hugging Face's with the same weights, and ours with plain torch ops; float32, one image."""
    size = setting.pick(512, 64)
    file = "coco/panoptic-segmentation/maskformer2_R50_bs16_50ep.yaml"
    recipe = Recipe("R50", file, setting.pick((), SMALL_DECODER), setting.device)
    rivals = [(plain, "ours with plain torch ops")]
    if has_transformers("step"):
        rivals.insert(0, (theirs, "Hugging Face's Mask2Former"))
    side = partial(ours, recipe, size)
    for rival, title in rivals:
        sides = side, partial(rival, recipe, size)
        yield Contest(
            f"training step R50, {size}x{size}, {TARGETS} targets",
            1,
            MILLISECONDS,
            *(make() for make in sides),
            title,
            _same,
            sides=sides,
            calls=STEPS,
            arithmetic=True,
        )


def ours(recipe: Recipe, size: int) -> Call:
    """Call of a step of our model; it returns the sum of the losses."""
    model, (classes, masks) = recipe.build(), draw_targets(size)
    inputs = [{"image": draw_image(size), "instances": Instances((size, size), gt_classes=classes, gt_masks=masks)}]
    return _steps(model, lambda: sum(model(inputs).values()))


def plain(recipe: Recipe, size: int) -> Call:
    """The same with plain torch ops."""
    return partial(with_torch_ops, ours(recipe, size))


def theirs(recipe: Recipe, size: int) -> Call:
    """The same of Hugging Face's model with our weights."""
    model, (classes, masks) = recipe.build(), draw_targets(size)
    pixels, model = normalised(model, draw_image(size)), hugging_face(model)
    labels = {"mask_labels": [masks.float().to(pixels.device)], "class_labels": [classes.to(pixels.device)]}
    return _steps(model, lambda: model(pixel_values=pixels, **labels).loss.sum())


def _steps(model: nn.Module, loss_of: Call) -> Call:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)

    def step() -> float:
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def draw_targets(size: int) -> tuple[Tensor, Tensor]:
    """Classes int64 [N] and masks bool [N,H,W]: bands of stuff and ellipses in front of them."""
    numbers = draw_segments(np.random.default_rng(0), (size, size), things=TARGETS - 4, stuff=4)
    classes = torch.arange(TARGETS)
    return classes, torch.from_numpy(numbers) == (classes + 1)[:, None, None]


def _same(ours: float, rival: float) -> None:
    if not abs(ours - rival) <= TOLERANCE * rival:
        raise ValueError(f"the losses sum up to {ours:.3f}, the rival's to {rival:.3f}: they are not the same")
