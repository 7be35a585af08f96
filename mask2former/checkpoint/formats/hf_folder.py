"""Our weights as a folder that `from_pretrained` of Hugging Face's transformers loads."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from mask2former.checkpoint.folders import WHOLE
from mask2former.checkpoint.formats.format import Format
from mask2former.checkpoint.formats.hf_config import (
    ImageSettings,
    mask2former_config,
    maskformer_config,
    preprocessor_config,
)
from mask2former.checkpoint.formats.hf_mask2former import HF_MASK2FORMER
from mask2former.checkpoint.formats.hf_maskformer import HF_MASKFORMER
from mask2former.checkpoint.writing import write_whole


@dataclass(frozen=True)
class _Model:
    """A model of theirs: its tensors, its config.json of ours and class names, its image processor."""

    format: Format
    config: Callable[[Mapping[str, Tensor], Sequence[str] | None], dict]
    processor: str


MODELS = {
    model.format.name: model
    for model in (
        _Model(HF_MASK2FORMER, mask2former_config, "Mask2FormerImageProcessor"),
        _Model(HF_MASKFORMER, maskformer_config, "MaskFormerImageProcessor"),
    )
}


def to_transformers(
    weights: Mapping[str, Tensor],
    folder: str | Path,
    name: str,
    *,
    class_names: Sequence[str] | None = None,
    image: ImageSettings | None = None,
) -> Path:
    """Write model.safetensors, config.json and preprocessor_config.json.

    Args:
        weights: by our names, on any device.
        folder: made where it is not there; files of these names in it are replaced.
        name: of the format, a key of `MODELS`.
        class_names: one per class; None: numbered ones.
        image: of the recipe; None: of the published COCO recipes.

    Returns:
        The folder.

    Raises:
        UserError: their model cannot express ours, names do not match the classes, or the folder cannot be written.
    """
    model, folder = MODELS[name], Path(folder)
    theirs = {key: value.detach().cpu().contiguous().clone() for key, value in model.format.from_ours(weights).items()}
    texts = {
        "config.json": model.config(weights, class_names),
        "preprocessor_config.json": preprocessor_config(model.processor, image or ImageSettings()),
    }
    remedy = "Make room or choose another folder."
    # from_pretrained wants to know which library's tensors they are
    write_whole(folder / WHOLE, lambda path: save_file(theirs, path, metadata={"format": "pt"}), remedy)
    for file, values in texts.items():
        text = json.dumps(values, indent=2) + "\n"
        write_whole(folder / file, lambda path, text=text: path.write_text(text), remedy)
    return folder
