"""The mapper "mask_former_panoptic" as a class."""

from __future__ import annotations

from mask2former.data.dataset_mappers.base import PublishedMapper


class MaskFormerPanopticDatasetMapper(PublishedMapper):
    """Panoptic maps; one target per segment."""

    mapper_name = "mask_former_panoptic"
