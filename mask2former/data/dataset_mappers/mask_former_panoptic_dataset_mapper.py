"""The mapper "mask_former_panoptic" as a class."""

from __future__ import annotations

from mask2former.data.dataset_mappers.base import PublishedMapper
from mask2former.data.targets import PanopticAnnotation
from mask2former.structures import LabelSet


class MaskFormerPanopticDatasetMapper(PublishedMapper):
    """Panoptic maps; one target per segment."""

    mapper_name = "mask_former_panoptic"
    arguments = ("augmentations", "image_format", "ignore_label", "size_divisibility")

    @staticmethod
    def annotation(labels: LabelSet | None, ignore_label: int) -> PanopticAnnotation:
        return PanopticAnnotation()
