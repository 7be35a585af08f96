"""What a format of weight files is to us."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from mask2former.checkpoint.formats.rules import Weights


@dataclass(frozen=True)
class Format:
    """A program's way of naming and laying out the tensors of a model.

    name        for command lines: "transformers-mask2former"
    title       for reports: "Hugging Face Mask2Former"
    whole       whether files hold a whole segmentation model; else a backbone, with or without its classifier
    recognises  whether tensors by these names (and shapes) are this program's
    to_ours     its tensors -> ours; those without a counterpart keep their names
    from_ours   ours -> its; None where it can only be read. Raises UserError for a model that it cannot express
    """

    name: str
    title: str
    whole: bool
    recognises: Callable[[Mapping[str, Tensor]], bool]
    to_ours: Callable[[Mapping[str, Tensor]], Weights]
    from_ours: Callable[[Mapping[str, Tensor]], Weights] | None = None
