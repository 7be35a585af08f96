"""The recipes under configs/mmdet/ differ from the published ones in what mmdetection differs in, and in no more."""

import pytest

from mask2former.config import load_cfg

# mmdetection's name -> the published recipe of the same model
PUBLISHED = {
    "r50_8xb2-lsj-50e": "maskformer2_R50_bs16_50ep",
    "r101_8xb2-lsj-50e": "maskformer2_R101_bs16_50ep",
    "swin-t-p4-w7-224_8xb2-lsj-50e": "swin/maskformer2_swin_tiny_bs16_50ep",
    "swin-s-p4-w7-224_8xb2-lsj-50e": "swin/maskformer2_swin_small_bs16_50ep",
    "swin-b-p4-w12-384_8xb2-lsj-50e": "swin/maskformer2_swin_base_384_bs16_50ep",
    "swin-b-p4-w12-384-in21k_8xb2-lsj-50e": "swin/maskformer2_swin_base_IN21k_384_bs16_50ep",
    "swin-l-p4-w12-384-in21k_16xb1-lsj-100e": "swin/maskformer2_swin_large_IN21k_384_bs16_100ep",
}
# where mmdetection's pretrained weights come from, by the beginning of its name
TORCHVISION, SWIN = (
    "https://download.pytorch.org/models/",
    "https://github.com/SwinTransformer/storage/releases/download/",
)
WEIGHTS = {
    "r50_": f"{TORCHVISION}resnet50-0676ba61.pth",
    "r101_": f"{TORCHVISION}resnet101-63fe2227.pth",
    "swin-t-": f"{SWIN}v1.0.0/swin_tiny_patch4_window7_224.pth",
    "swin-s-": f"{SWIN}v1.0.0/swin_small_patch4_window7_224.pth",
    "swin-b-p4-w12-384_": f"{SWIN}v1.0.0/swin_base_patch4_window12_384.pth",
    "swin-b-p4-w12-384-in21k_": f"{SWIN}v1.0.0/swin_base_patch4_window12_384_22k.pth",
    "swin-l-": f"{SWIN}v1.0.0/swin_large_patch4_window12_384_22k.pth",
}
# task -> what else is not as published
DIFFERENCES = {
    "panoptic": {
        "SOLVER.AMP.ENABLED": False,
        "DATASETS.TEST": ["coco_2017_val_panoptic"],
        "MODEL.MASK_FORMER.TEST.SEMANTIC_ON": False,
    },
    "instance": {"SOLVER.AMP.ENABLED": False},
}
# mmdetection's own numbers, which its recipes share with the published ones
COMMON = {
    "INPUT.FORMAT": "RGB",
    "INPUT.IMAGE_SIZE": 1024,
    "INPUT.MIN_SCALE": 0.1,
    "INPUT.MAX_SCALE": 2.0,
    "INPUT.MIN_SIZE_TEST": 800,
    "INPUT.MAX_SIZE_TEST": 1333,
    "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
    "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
    "MODEL.MASK_FORMER.NO_OBJECT_WEIGHT": 0.1,
    "MODEL.MASK_FORMER.CLASS_WEIGHT": 2.0,
    "MODEL.MASK_FORMER.MASK_WEIGHT": 5.0,
    "MODEL.MASK_FORMER.DICE_WEIGHT": 5.0,
    "MODEL.MASK_FORMER.TRAIN_NUM_POINTS": 12544,
    "MODEL.MASK_FORMER.OVERSAMPLE_RATIO": 3.0,
    "MODEL.MASK_FORMER.IMPORTANCE_SAMPLE_RATIO": 0.75,
    "MODEL.MASK_FORMER.TEST.OBJECT_MASK_THRESHOLD": 0.8,
    "MODEL.MASK_FORMER.TEST.OVERLAP_THRESHOLD": 0.8,
    "MODEL.MASK_FORMER.TEST.PANOPTIC_FILL": False,
    "MODEL.RESNETS.NORM": "FrozenBN",
    "MODEL.SWIN.DROP_PATH_RATE": 0.3,
    "SOLVER.OPTIMIZER": "ADAMW",
    "SOLVER.IMS_PER_BATCH": 16,
    "SOLVER.BASE_LR": 0.0001,
    "SOLVER.WEIGHT_DECAY": 0.05,
    "SOLVER.WEIGHT_DECAY_NORM": 0.0,
    "SOLVER.WEIGHT_DECAY_EMBED": 0.0,
    "SOLVER.BACKBONE_MULTIPLIER": 0.1,
    "SOLVER.WARMUP_FACTOR": 1.0,
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "full_model",
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": 0.01,
    "TEST.DETECTIONS_PER_IMAGE": 100,
    "TEST.EVAL_PERIOD": 5000,
}
SCHEDULES = {"50e": (368750, [327778, 355092]), "100e": (737500, [655556, 710184])}
TASKS = {"panoptic": "_coco-panoptic", "instance": "_coco"}


def flat(node, prefix=""):
    result = {}
    for key, value in node.items():
        result.update(flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return result


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", PUBLISHED)
def test_recipe(name, task, repo_dir):
    ours = flat(load_cfg(repo_dir / f"configs/mmdet/mask2former_{name}{TASKS[task]}.yaml"))
    published = flat(load_cfg(repo_dir / f"configs/coco/{task}-segmentation/{PUBLISHED[name]}.yaml"))
    weights = next(address for beginning, address in WEIGHTS.items() if name.startswith(beginning))
    different = {key: value for key, value in ours.items() if value != published[key]}
    assert different == {"MODEL.WEIGHTS": weights, **DIFFERENCES[task]}
    assert {key: ours[key] for key in COMMON} == COMMON
    assert (ours["SOLVER.MAX_ITER"], ours["SOLVER.STEPS"]) == SCHEDULES[name.rpartition("-")[2]]
    assert ours["MODEL.MASK_FORMER.NUM_OBJECT_QUERIES"] == (200 if name.startswith("swin-l") else 100)


def test_no_other_recipe(repo_dir):
    files = {path.stem for path in (repo_dir / "configs/mmdet").glob("mask2former_*")}
    assert files == {f"mask2former_{name}{end}" for name in PUBLISHED for end in TASKS.values()}
