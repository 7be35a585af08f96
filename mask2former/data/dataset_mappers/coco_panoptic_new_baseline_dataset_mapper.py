"""The mapper "coco_panoptic_lsj" as a class."""

from __future__ import annotations

from mask2former.data.dataset_mappers.base import PublishedMapper


class COCOPanopticNewBaselineDatasetMapper(PublishedMapper):
    """Panoptic maps, with large-scale jitter."""

    mapper_name = "coco_panoptic_lsj"
