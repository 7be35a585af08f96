"""From raw predictions to results: ours beside the published order of steps.

Hugging Face's `post_process_*_segmentation` is no rival: it resizes masks to 384x384 whatever the image, so it gives
other results.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor, nn

from _benchmarks import published
from _benchmarks.contest import MILLISECONDS, Call, Contest, check_tensors
from _benchmarks.models import Recipe
from _benchmarks.pictures import draw_segments
from _benchmarks.published import Sizes
from _benchmarks.setting import Setting
from mask2former.evaluation.encoding import encode_masks

# Q queries, K classes, h w stride 4 of the padded image, H W wanted size

QUERIES, TOP = 100, 100
SEEN = 12  # segments of a picture; each query has the mask of one
SURE = 6  # every sixth query is sure of a class, so that a few segments are found twice
# a COCO image of 640x480 pixels at 800 on the short side, an ADE20K one at 512; padded to multiples of 32
COCO = Sizes(padded=(800, 1088), image=(800, 1067), output=(480, 640))
ADE20K = Sizes(padded=(512, 704), image=(512, 683), output=(480, 640))
SMALL = Sizes(padded=(64, 96), image=(64, 86), output=(48, 64))
SHARE = 1e-3  # of pixels that may fall on another side, where two sums of float32 are equal but for rounding

_Instances = list[tuple[float, int, dict]]  # score, class, COCO's RLE


@dataclass(frozen=True)
class Task:
    """name: ours of the result, also that of the key TEST.<NAME>_ON; recipe and sizes of its images."""

    name: str
    recipe: Recipe
    sizes: Sizes


def contests(setting: Setting) -> Iterator[Contest]:
    """Panoptic result, instances as run lengths, semantic result of one image."""
    families = (
        ("PANOPTIC", "coco/panoptic-segmentation/maskformer2_R50_bs16_50ep.yaml", COCO, _same_segments),
        ("INSTANCE", "coco/instance-segmentation/maskformer2_R50_bs16_50ep.yaml", COCO, _same_instances),
        ("SEMANTIC", "ade20k/semantic-segmentation/maskformer2_R50_bs16_160k.yaml", ADE20K, _same_scores),
    )
    for name, file, sizes, same in families:
        sizes = setting.pick(sizes, SMALL)
        only = [x for key, *_ in families for x in (f"MODEL.MASK_FORMER.TEST.{key}_ON", key == name)]
        task = Task(name, Recipe("R50", file, tuple(only), setting.device), sizes)
        sides = partial(ours, task), partial(rival, task)
        height, width = sizes.output
        what = {"PANOPTIC": "panoptic", "INSTANCE": f"top {TOP} instances to RLE", "SEMANTIC": "semantic"}[name]
        title = f"postprocess, {what}, {QUERIES} queries to {width}x{height}"
        calls = (side() for side in sides)
        yield Contest(title, 1, MILLISECONDS, *calls, "all masks to full size first", same, sides=sides)


@functools.lru_cache(1)  # both sides ask for it
def _model(task: Task) -> nn.Module:
    return task.recipe.build().eval()


def ours(task: Task) -> Call:
    """The model's own, and for instances the evaluator's encoding."""
    model = _model(task)
    logits, masks = draw_predictions(model.criterion.num_classes, task)
    raw = {"pred_logits": logits[None], "pred_masks": masks[None]}
    image = torch.empty(3, *task.sizes.image, dtype=torch.uint8)
    inputs = [{"image": image, "height": task.sizes.output[0], "width": task.sizes.output[1]}]

    @torch.no_grad()
    def call() -> Tensor | tuple[Tensor, list[dict]] | _Instances:
        result = model.postprocess(raw, inputs)[0]
        if task.name != "INSTANCE":
            return result["panoptic_seg" if task.name == "PANOPTIC" else "sem_seg"]
        found = result["instances"]
        rles = [{"size": task.sizes.output, "counts": counts} for counts in encode_masks(found.pred_masks).counts]
        return list(zip(found.scores.tolist(), found.pred_classes.tolist(), rles, strict=True))

    return call


def rival(task: Task) -> Call:
    """The published order of steps."""
    model = _model(task)
    wanted, things = model.inference, model.thing_ids
    arguments = (*draw_predictions(model.criterion.num_classes, task), task.sizes)
    functions = {
        "PANOPTIC": lambda: published.panoptic(*arguments, things, wanted.score_threshold, wanted.overlap_threshold),
        "INSTANCE": lambda: published.instances(*arguments, TOP),
        "SEMANTIC": lambda: published.semantic(*arguments),
    }
    return torch.no_grad()(functions[task.name])


def draw_predictions(num_classes: int, task: Task) -> tuple[Tensor, Tensor]:
    """Class logits [Q,K+1] and mask logits [Q,h,w], much as of a trained model."""
    rng = np.random.default_rng(0)
    size = tuple(side // 4 for side in task.sizes.padded)
    numbers = torch.from_numpy(draw_segments(rng, size, things=SEEN - 4, stuff=4))
    segments = torch.arange(QUERIES) // SURE % SEEN + 1
    masks = 12.0 * (numbers == segments[:, None, None]) + torch.from_numpy(rng.normal(-6, 1, (QUERIES, *size)))
    logits = torch.from_numpy(rng.normal(0, 1, (QUERIES, num_classes + 1)))
    logits[:, -1] += 6
    sure = torch.arange(0, QUERIES, SURE)
    logits[sure, segments[sure] * 10 % num_classes] += 12
    logits, masks = logits.float(), masks.float()
    return logits.to(task.recipe.device), masks.to(task.recipe.device)


def _same_scores(ours: Tensor, rival: Tensor) -> None:
    check_tensors("class scores", ours, rival, 1e-4)


def _same_segments(ours: tuple[Tensor, list[dict]], rival: tuple[Tensor, list[dict]]) -> None:
    if ours[1] != rival[1]:
        raise ValueError(f"segments are {ours[1]}, the rival's {rival[1]}")
    differing = float((ours[0] != rival[0]).float().mean())
    if differing > SHARE:
        raise ValueError(f"{differing:.2%} of the pixels belong to another segment than the rival's")


def _same_instances(ours: _Instances, rival: _Instances) -> None:
    for own, other in zip(*(sorted(x, key=lambda found: found[:2]) for x in (ours, rival)), strict=True):
        if own[1] != other[1] or abs(own[0] - other[0]) > 1e-4:
            raise ValueError(f"an instance has score and class {own[:2]}, the rival's {other[:2]}")
        area, others_area = (coco_mask.area(found[2]) for found in (own, other))
        if coco_mask.iou([own[2]], [other[2]], [0]).item() < 1 - SHARE and area + others_area:
            raise ValueError(f"a mask of {area} pixels is not the rival's, which has {others_area}")
