"""Models to time: ours by recipe, ours with plain torch ops, and Hugging Face's with the same weights."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mask2former.config import load_cfg
from mask2former.modeling import build_model

# H W image size

CONFIGS = Path(__file__).parents[2] / "configs"
# of a decoder, so that a check of results is quick
SMALL_DECODER = ("MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS", 1, "MODEL.MASK_FORMER.DEC_LAYERS", 3)


@dataclass(frozen=True)
class Recipe:
    """A model: name for the table, file below configs/, further keys and values, device."""

    name: str
    file: str
    opts: tuple[Any, ...]
    device: torch.device

    def build(self) -> nn.Module:
        """Ours in training mode, with the same random weights every time."""
        opts = [*self.opts, "MODEL.DEVICE", str(self.device), "MODEL.WEIGHTS", ""]
        torch.manual_seed(0)
        return build_model(load_cfg(CONFIGS / self.file, opts))


def draw_image(size: int) -> Tensor:
    """uint8 [3,H,W] of noise: what is to be seen does not change the work."""
    return torch.randint(0, 256, (3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def normalised(model: nn.Module, image: Tensor) -> Tensor:
    """float [1,3,H,W] on our model's device, as Hugging Face's image processors hand it over."""
    return ((image.to(model.device) - model.pixel_mean) / model.pixel_std)[None]


@contextlib.contextmanager
def _forced_ops(backend: str) -> Iterator[None]:
    """Our ops in one implementation."""
    before = os.environ.get("MASK2FORMER_OPS")
    os.environ["MASK2FORMER_OPS"] = backend
    try:
        yield
    finally:
        os.environ.pop("MASK2FORMER_OPS")
        if before is not None:
            os.environ["MASK2FORMER_OPS"] = before


def with_torch_ops(call: Callable[..., Any], *args: Any) -> Any:
    """`call(*args)` while our ops run as plain torch."""
    with _forced_ops("torch"):
        return call(*args)


def has_transformers(benchmark: str) -> bool:
    """Whether Hugging Face's Mask2Former is here; else a line says that this benchmark goes without."""
    found = importlib.util.find_spec("transformers") is not None
    if not found:
        print(f"{benchmark}: not beside Hugging Face's Mask2Former, since transformers is not installed")
    return found


def hugging_face(model: nn.Module) -> nn.Module:
    """Hugging Face's Mask2Former with the weights of ours, on its device, in training mode.

    Batch norms are frozen, as they are in ours.
    """
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation
    from transformers.utils import logging

    from mask2former.checkpoint.formats.hf_config import mask2former_config
    from mask2former.checkpoint.formats.hf_mask2former import HF_MASK2FORMER

    logging.set_verbosity_error()  # it warns of every backbone but Swin
    logging.disable_progress_bar()
    weights = model.state_dict()
    config = Mask2FormerConfig.from_dict(mask2former_config(weights))
    # names in their files are not always those in their models, which this function knows
    theirs = Mask2FormerForUniversalSegmentation.from_pretrained(
        None, config=config, state_dict=HF_MASK2FORMER.from_ours(weights)
    )
    theirs.to(model.device).train()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval().requires_grad_(False)
    return theirs
