"""The mapper "coco_instance_lsj" as a class."""

from __future__ import annotations

from mask2former.data.dataset_mappers.base import PublishedMapper


class COCOInstanceNewBaselineDatasetMapper(PublishedMapper):
    """Lists of objects, with large-scale jitter."""

    mapper_name = "coco_instance_lsj"
