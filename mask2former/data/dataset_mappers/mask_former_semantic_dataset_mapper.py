"""The mapper "mask_former_semantic" as a class."""

from __future__ import annotations

import sys

from mask2former.data.dataset_mappers.base import PublishedMapper
from mask2former.data.targets import SemanticAnnotation
from mask2former.structures import LabelSet


class MaskFormerSemanticDatasetMapper(PublishedMapper):
    """Semantic maps; one target per class."""

    mapper_name = "mask_former_semantic"
    arguments = ("augmentations", "image_format", "ignore_label", "size_divisibility")

    @staticmethod
    def annotation(labels: LabelSet | None, ignore_label: int) -> SemanticAnnotation:
        classes = sys.maxsize if labels is None else labels.num_classes
        return SemanticAnnotation(classes, ignore_label)

    @property
    def mask_fill(self) -> int:
        return self.ignore_label
