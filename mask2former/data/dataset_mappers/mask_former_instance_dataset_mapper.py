"""The mapper "mask_former_instance" as a class."""

from __future__ import annotations

from mask2former.data.dataset_mappers.base import PublishedMapper


class MaskFormerInstanceDatasetMapper(PublishedMapper):
    """Lists of objects; one target per object."""

    mapper_name = "mask_former_instance"
