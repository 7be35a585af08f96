"""Mask classification for semantic, instance, panoptic and video instance segmentation.

Importing the package registers nothing, reads no environment variable and loads none of the rooms below it:
take what you need from `mask2former.config`, `mask2former.modeling`, `mask2former.data` and the others.
"""

from __future__ import annotations

__version__ = "0.1.0"

# what scripts written for the published code import from here -> where it is
_PUBLISHED = {
    "COCOInstanceNewBaselineDatasetMapper": "data.dataset_mappers.coco_instance_new_baseline_dataset_mapper",
    "COCOPanopticNewBaselineDatasetMapper": "data.dataset_mappers.coco_panoptic_new_baseline_dataset_mapper",
    "DETRPanopticDatasetMapper": "data.dataset_mappers.detr_panoptic_dataset_mapper",
    "MaskFormerInstanceDatasetMapper": "data.dataset_mappers.mask_former_instance_dataset_mapper",
    "MaskFormerPanopticDatasetMapper": "data.dataset_mappers.mask_former_panoptic_dataset_mapper",
    "MaskFormerSemanticDatasetMapper": "data.dataset_mappers.mask_former_semantic_dataset_mapper",
    "add_maskformer2_config": "compat",
}


def __getattr__(name: str) -> object:
    if name not in _PUBLISHED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_PUBLISHED[name]}"), name)
