"""The mapper "coco_instance_lsj" as a class."""

from __future__ import annotations

from mask2former.data.dataset_mappers.base import PublishedMapper
from mask2former.data.targets import InstanceAnnotation
from mask2former.structures import LabelSet


class COCOInstanceNewBaselineDatasetMapper(PublishedMapper):
    """Lists of objects, with large-scale jitter."""

    mapper_name = "coco_instance_lsj"
    arguments = ("tfm_gens", "image_format")

    @staticmethod
    def annotation(labels: LabelSet | None, ignore_label: int) -> InstanceAnnotation:
        return InstanceAnnotation()
