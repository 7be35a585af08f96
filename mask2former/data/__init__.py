"""Data sets, augmentations and loaders: from files to the dictionaries that the model takes."""

from mask2former.data.build import (
    MAPPERS,
    build_test_loader,
    build_test_transform,
    build_train_loader,
)
from mask2former.data.catalog import DatasetCatalog, Metadata, MetadataCatalog, labels_of
from mask2former.data.datasets.build import check_datasets, register_datasets
from mask2former.data.datasets.builtin import register_builtin
from mask2former.data.datasets.coco import load_coco_json, register_coco_instances
from mask2former.data.datasets.coco_panoptic import register_coco_panoptic, register_coco_panoptic_separated
from mask2former.data.datasets.custom import register_custom
from mask2former.data.datasets.folder import load_sem_seg
from mask2former.data.datasets.ytvis import load_ytvis_json, register_ytvis_instances
from mask2former.data.reading import read_image, read_mask

__all__ = [
    "MAPPERS",
    "DatasetCatalog",
    "Metadata",
    "MetadataCatalog",
    "build_test_loader",
    "build_test_transform",
    "build_train_loader",
    "check_datasets",
    "labels_of",
    "load_coco_json",
    "load_sem_seg",
    "load_ytvis_json",
    "read_image",
    "read_mask",
    "register_builtin",
    "register_coco_instances",
    "register_coco_panoptic",
    "register_coco_panoptic_separated",
    "register_custom",
    "register_datasets",
    "register_ytvis_instances",
]
