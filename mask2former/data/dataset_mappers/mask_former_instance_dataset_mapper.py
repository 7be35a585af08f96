"""The mapper "mask_former_instance" as a class."""

from __future__ import annotations

from mask2former.data.dataset_mappers.base import PublishedMapper
from mask2former.data.targets import InstanceAnnotation
from mask2former.structures import LabelSet


class MaskFormerInstanceDatasetMapper(PublishedMapper):
    """Lists of objects; one target per object."""

    mapper_name = "mask_former_instance"
    arguments = ("augmentations", "image_format", "size_divisibility")

    @staticmethod
    def annotation(labels: LabelSet | None, ignore_label: int) -> InstanceAnnotation:
        return InstanceAnnotation()
