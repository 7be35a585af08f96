"""The mapper "detr_panoptic" as a class."""

from __future__ import annotations

from mask2former.data.dataset_mappers.base import PublishedMapper


class DETRPanopticDatasetMapper(PublishedMapper):
    """Panoptic maps, with DETR's crops and sizes."""

    mapper_name = "detr_panoptic"
