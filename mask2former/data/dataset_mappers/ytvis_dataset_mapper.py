"""The mapper "ytvis" as a class, and under its published name for images."""

from __future__ import annotations

from typing import Any

from mask2former.config.configurable import configurable
from mask2former.data.clips import ClipMapper, ClipSampling
from mask2former.data.dataset_mappers.augmentations import AugmentationList
from mask2former.data.dataset_mappers.base import PublishedMapper
from mask2former.data.targets import InstanceAnnotation
from mask2former.structures import LabelSet


class YTVISDatasetMapper(PublishedMapper):
    """Clips of videos; augmentations change all frames of a clip alike.

    Args:
        sampling_frame_num, sampling_frame_range, sampling_frame_shuffle: as in `ClipSampling`.
    """

    mapper_name = "ytvis"
    arguments = (
        "augmentations",
        "image_format",
        "sampling_frame_num",
        "sampling_frame_range",
        "sampling_frame_shuffle",
    )

    @configurable
    def __init__(
        self,
        is_train: bool | LabelSet = True,
        *,
        sampling_frame_num: int = 2,
        sampling_frame_range: int = 5,
        sampling_frame_shuffle: bool = False,
        **published: Any,
    ):
        super().__init__(is_train, **published)
        sampling = ClipSampling(sampling_frame_num, sampling_frame_range, sampling_frame_shuffle)
        self._mapper = ClipMapper(sampling, AugmentationList([]), self.img_format)

    @staticmethod
    def annotation(labels: LabelSet | None, ignore_label: int) -> InstanceAnnotation:
        return InstanceAnnotation()


class CocoClipDatasetMapper(YTVISDatasetMapper):
    """Clips made of images."""

    arguments = ("augmentations", "image_format", "sampling_frame_num")
