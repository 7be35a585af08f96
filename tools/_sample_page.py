"""A page of augmented samples, drawn as training sees them."""

from __future__ import annotations

import math

from _common import spread
from _pictures import sample_picture
from PIL import Image

from mask2former.config import CfgNode
from mask2former.data import MetadataCatalog, labels_of
from mask2former.data.build import build_train_mapper
from mask2former.data.inspection import Inspection
from mask2former.data.loader import seeded
from mask2former.utils.errors import UserError

_SAMPLES, _COLUMNS = 12, 4
_CELL, _GAP = 400, 8  # longest side that a sample may have on the page, and the space between two, pixels
_PAPER = (255, 255, 255)
# kind of ground truth -> mapper, where no recipe names one
_MAPPERS = {
    "panoptic": "mask_former_panoptic",
    "instances": "mask_former_instance",
    "semantic": "mask_former_semantic",
}


def sample_page(cfg: CfgNode, inspection: Inspection, recipe: bool) -> Image.Image | None:
    """Samples of a data set, spread evenly over it, with the masks and classes that the model learns.

    Args:
        cfg: the recipe, or the defaults.
        inspection: of the data set; records that the mapper refuses are left out.
        recipe: whether `cfg` names the mapper for this data set; else the one that fits the ground truth is taken.

    Returns:
        None where the data set has no ground truth.

    Raises:
        UserError: the mapper refuses all of them.
    """
    kinds = [*inspection.frequencies()]
    if not kinds:
        return None
    cfg = cfg.clone()
    cfg.defrost()
    if not recipe:
        cfg.INPUT.DATASET_MAPPER_NAME = "ytvis" if inspection.unit == "videos" else _MAPPERS[kinds[0]]
    labels = labels_of(MetadataCatalog.get(inspection.name))
    mapper = build_train_mapper(cfg, labels)
    pictures, refusal = [], None
    for index in spread(len(inspection.records), _SAMPLES):
        try:
            with seeded(0, index):
                sample = mapper(inspection.records[index])
        except (UserError, KeyError) as error:  # a key that the mapper reads is not in the record
            refusal = error
            continue
        pictures.append(Image.fromarray(sample_picture(sample, labels, cfg.INPUT.FORMAT)))
    if not pictures:
        raise UserError(f"{cfg.INPUT.DATASET_MAPPER_NAME} refuses its records: {refusal}")
    return _grid(pictures)


def _grid(pictures: list[Image.Image]) -> Image.Image:
    """The pictures in rows of equal cells; large ones are reduced."""
    for picture in pictures:
        picture.thumbnail((_CELL, _CELL))
    columns = min(_COLUMNS, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    across, down = (max(picture.size[axis] for picture in pictures) + _GAP for axis in (0, 1))
    page = Image.new("RGB", (_GAP + columns * across, _GAP + rows * down), _PAPER)
    for i, picture in enumerate(pictures):
        page.paste(picture, (_GAP + i % columns * across, _GAP + i // columns * down))
    return page
