"""The mapper "coco_panoptic_lsj" as a class."""

from __future__ import annotations

from mask2former.data.dataset_mappers.base import PublishedMapper
from mask2former.data.targets import PanopticAnnotation
from mask2former.structures import LabelSet


class COCOPanopticNewBaselineDatasetMapper(PublishedMapper):
    """Panoptic maps, with large-scale jitter."""

    mapper_name = "coco_panoptic_lsj"
    arguments = ("tfm_gens", "image_format")

    @staticmethod
    def annotation(labels: LabelSet | None, ignore_label: int) -> PanopticAnnotation:
        return PanopticAnnotation()
