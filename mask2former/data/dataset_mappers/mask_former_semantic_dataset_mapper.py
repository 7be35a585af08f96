"""The mapper "mask_former_semantic" as a class."""

from __future__ import annotations

from mask2former.data.dataset_mappers.base import PublishedMapper


class MaskFormerSemanticDatasetMapper(PublishedMapper):
    """Semantic maps; one target per class."""

    mapper_name = "mask_former_semantic"
