"""The mapper "detr_panoptic" as a class."""

from __future__ import annotations

from mask2former.data.dataset_mappers.base import PublishedMapper
from mask2former.data.targets import PanopticAnnotation
from mask2former.structures import LabelSet


class DETRPanopticDatasetMapper(PublishedMapper):
    """Panoptic maps, with DETR's crops and sizes."""

    mapper_name = "detr_panoptic"
    arguments = ("tfm_gens", "image_format")

    @staticmethod
    def annotation(labels: LabelSet | None, ignore_label: int) -> PanopticAnnotation:
        return PanopticAnnotation()
