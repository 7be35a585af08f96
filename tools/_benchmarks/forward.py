"""Raw predictions of an image: ours beside Hugging Face's, and beside ours with plain torch ops."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from _benchmarks.contest import MILLISECONDS, Call, Contest, check_tensors
from _benchmarks.models import (
    SMALL_DECODER,
    Recipe,
    draw_image,
    has_transformers,
    hugging_face,
    normalised,
    with_torch_ops,
)
from _benchmarks.setting import Setting

# B batch, Q queries, K classes, h w stride 4

# float32 sums in another order; where a mask logit is near 0 the next layer's attention may see another pixel
TOLERANCE = 1e-3
_FOLDER = "coco/panoptic-segmentation"
_TINY_SWIN = ("MODEL.SWIN.EMBED_DIM", 24, "MODEL.SWIN.DEPTHS", [1, 1, 2, 1])
_TINY_DINAT = (
    *("MODEL.DINAT.EMBED_DIM", 16, "MODEL.DINAT.DEPTHS", [2, 1, 1, 1], "MODEL.DINAT.NUM_HEADS", [1, 2, 4, 8]),
    *("MODEL.DINAT.KERNEL_SIZE", 5, "MODEL.DINAT.DILATIONS", [[1, 2], [1], [1], [1]]),
)

_Raw = tuple[Tensor, Tensor]  # class logits [B,Q,K+1], mask logits [B,Q,h,w]


def contests(setting: Setting) -> Iterator[Contest]:
    """R50 at 512x512 and 1024x1024, Swin-T and DiNAT-L at 640x640, float32, one image."""
    compared = has_transformers("forward")
    for recipe, size in _models(setting):
        name = f"forward {recipe.name}, {size}x{size}"
        sides = partial(ours, recipe, size)
        call = sides()
        rivals = [(partial(plain, recipe, size), "ours with plain torch ops")]
        if compared and "DiNAT" not in recipe.name:  # for which transformers wants another package
            rivals.insert(0, (partial(theirs, recipe, size), "Hugging Face's Mask2Former"))
        for rival, title in rivals:
            yield Contest(name, 1, MILLISECONDS, call, rival(), title, _same, sides=(sides, rival), arithmetic=True)


def _models(setting: Setting) -> Iterator[tuple[Recipe, int]]:
    families = (
        ("R50", f"{_FOLDER}/maskformer2_R50_bs16_50ep.yaml", (), setting.pick((512, 1024), (64,))),
        ("Swin-T", f"{_FOLDER}/swin/maskformer2_swin_tiny_bs16_50ep.yaml", _TINY_SWIN, setting.pick((640,), (64,))),
        (
            "DiNAT-L",
            f"{_FOLDER}/dinat/maskformer2_dinat_large_IN21k_384_bs16_100ep.yaml",
            _TINY_DINAT,
            setting.pick((640,), (64,)),
        ),
    )
    for name, file, tiny, sizes in families:
        recipe = Recipe(name, file, setting.pick((), (*SMALL_DECODER, *tiny)), setting.device)
        yield from ((recipe, size) for size in sizes)


def ours(recipe: Recipe, size: int) -> Call:
    """Our model's call of an image that is not yet normalised."""
    model, inputs = recipe.build().eval().requires_grad_(False), [{"image": draw_image(size)}]

    @torch.no_grad()
    def call() -> _Raw:
        raw = model.predict_raw(inputs)
        return raw["pred_logits"], raw["pred_masks"]

    return call


def plain(recipe: Recipe, size: int) -> Call:
    """The same with plain torch ops."""
    return partial(with_torch_ops, ours(recipe, size))


def theirs(recipe: Recipe, size: int) -> Call:
    """The call of Hugging Face's model with our weights, of a normalised image."""
    model = recipe.build()
    pixels, model = normalised(model, draw_image(size)), hugging_face(model).eval().requires_grad_(False)

    @torch.no_grad()
    def call() -> _Raw:
        output = model(pixel_values=pixels)
        return output.class_queries_logits, output.masks_queries_logits

    return call


def _same(ours: _Raw, rival: _Raw) -> None:
    for what, own, other in zip(("class logits", "mask logits"), ours, rival, strict=True):
        check_tensors(what, own, other, TOLERANCE)
