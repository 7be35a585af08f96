"""Names of detectron2 and of the published package for video that user modules import, and the objects of this package
that they stand for.

Written "module:name"; ":*" stands for all public names of a module. Objects are looked up when they are asked for, so
that the table may point at any room. A module of these packages that is not a key here does not exist for user modules.
"""

from __future__ import annotations

_CATALOGS = {
    "DatasetCatalog": "mask2former.data.catalog:DatasetCatalog",
    "Metadata": "mask2former.data.catalog:Metadata",
    "MetadataCatalog": "mask2former.data.catalog:MetadataCatalog",
}
_CONFIG = {
    "CfgNode": "mask2former.config:CfgNode",
    "configurable": "mask2former.config.configurable:configurable",
    "get_cfg": "mask2former.config:get_cfg",
}
_COCO = {
    "load_coco_json": "mask2former.data.datasets.coco:load_coco_json",
    "load_sem_seg": "mask2former.compat.datasets:load_sem_seg",
    "register_coco_instances": "mask2former.data.datasets.coco:register_coco_instances",
}
_PANOPTIC = {
    "load_coco_panoptic_json": "mask2former.data.datasets.coco_panoptic:load_coco_panoptic_json",
    "register_coco_panoptic": "mask2former.data.datasets.coco_panoptic:register_coco_panoptic",
    "register_coco_panoptic_separated": "mask2former.data.datasets.coco_panoptic:register_coco_panoptic_separated",
}
_EVALUATORS = {
    "COCOEvaluator": "mask2former.evaluation:InstanceEvaluator",
    "COCOPanopticEvaluator": "mask2former.evaluation:PanopticEvaluator",
    "DatasetEvaluator": "mask2former.evaluation:DatasetEvaluator",
    "DatasetEvaluators": "mask2former.evaluation:DatasetEvaluators",
    "SemSegEvaluator": "mask2former.evaluation:SemSegEvaluator",
    "inference_on_dataset": "mask2former.evaluation:inference_on_dataset",
}
_MASKS = {
    "BitMasks": "mask2former.structures:BitMasks",
    "PolygonMasks": "mask2former.compat.structures:PolygonMasks",
    "polygons_to_bitmask": "mask2former.compat.structures:polygons_to_bitmask",
}
_BOXES = {
    "BoxMode": "mask2former.compat.structures:BoxMode",
    "Boxes": "mask2former.compat.structures:Boxes",
}
_INSTANCES = {"Instances": "mask2former.structures:Instances"}
_TRANSFORMS = {"*": "mask2former.compat.transforms:*"}

_CLIP_CONFIG = {"add_maskformer2_video_config": "mask2former.compat.config:add_maskformer2_config"}  # one set of keys
_CLIP_MODEL = {"VideoMaskFormer": "mask2former.modeling.video:VideoMaskFormer"}
_CLIP_MAPPERS = {
    "CocoClipDatasetMapper": "mask2former.data.dataset_mappers.ytvis_dataset_mapper:CocoClipDatasetMapper",
    "YTVISDatasetMapper": "mask2former.data.dataset_mappers.ytvis_dataset_mapper:YTVISDatasetMapper",
}
_CLIP_LOADERS = {
    "build_detection_test_loader": "mask2former.data:build_test_loader",
    "build_detection_train_loader": "mask2former.data:build_train_loader",
}
_CLIP_EVALUATOR = {"YTVISEvaluator": "mask2former.evaluation:VideoInstanceEvaluator"}
_CLIP_DATA = {**_CLIP_MAPPERS, **_CLIP_LOADERS, **_CLIP_EVALUATOR}
_YTVIS = {
    "load_ytvis_json": "mask2former.data.datasets.ytvis:load_ytvis_json",
    "register_ytvis_instances": "mask2former.data.datasets.ytvis:register_ytvis_instances",
}

# their module -> its names here
ALIASES: dict[str, dict[str, str]] = {
    "detectron2": {},
    "detectron2.config": _CONFIG,
    "detectron2.config.config": _CONFIG,
    "detectron2.data": {
        **_CATALOGS,
        "build_detection_test_loader": "mask2former.data:build_test_loader",
        "build_detection_train_loader": "mask2former.data:build_train_loader",
    },
    "detectron2.data.catalog": _CATALOGS,
    "detectron2.data.datasets": {**_COCO, **_PANOPTIC},
    "detectron2.data.datasets.coco": _COCO,
    "detectron2.data.datasets.coco_panoptic": _PANOPTIC,
    "detectron2.data.detection_utils": {"*": "mask2former.compat.detection_utils:*"},
    "detectron2.data.transforms": _TRANSFORMS,
    "detectron2.data.transforms.augmentation": _TRANSFORMS,
    "detectron2.data.transforms.augmentation_impl": _TRANSFORMS,
    "detectron2.evaluation": _EVALUATORS,
    "detectron2.projects": {},
    "detectron2.projects.deeplab": {"add_deeplab_config": "mask2former.compat.config:add_deeplab_config"},
    "detectron2.projects.point_rend": {"ColorAugSSDTransform": "mask2former.compat.transforms:ColorAugSSDTransform"},
    "detectron2.structures": {**_BOXES, **_INSTANCES, **_MASKS},
    "detectron2.structures.boxes": _BOXES,
    "detectron2.structures.instances": _INSTANCES,
    "detectron2.structures.masks": _MASKS,
    "detectron2.utils": {},
    "detectron2.utils.comm": {"*": "mask2former.utils.comm:*"},
    "detectron2.utils.file_io": {"PathManager": "mask2former.utils.io:path_manager"},
    "detectron2.utils.logger": {"setup_logger": "mask2former.compat.logger:setup_logger"},
    "mask2former_video": {**_CLIP_CONFIG, **_CLIP_MODEL, **_CLIP_DATA},
    "mask2former_video.config": _CLIP_CONFIG,
    "mask2former_video.data_video": {**_CLIP_DATA, **_YTVIS},
    "mask2former_video.data_video.build": _CLIP_LOADERS,
    "mask2former_video.data_video.dataset_mapper": _CLIP_MAPPERS,
    "mask2former_video.data_video.datasets": _YTVIS,
    "mask2former_video.data_video.datasets.ytvis": _YTVIS,
    "mask2former_video.data_video.ytvis_eval": _CLIP_EVALUATOR,
    "mask2former_video.video_maskformer_model": _CLIP_MODEL,
}
