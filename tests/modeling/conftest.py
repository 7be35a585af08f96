import pytest
import torch

from mask2former.config import get_cfg
from mask2former.structures import Instances

TINY = [
    ("MODEL.DEVICE", "cpu"),
    ("MODEL.META_ARCHITECTURE", "MaskFormer"),
    ("MODEL.BACKBONE.NAME", "timm/test_resnet"),
    ("MODEL.BACKBONE.FREEZE_AT", 0),
    ("MODEL.SEM_SEG_HEAD.NAME", "MaskFormerHead"),
    ("MODEL.SEM_SEG_HEAD.IN_FEATURES", ["res2", "res3", "res4", "res5"]),
    ("MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", "MSDeformAttnPixelDecoder"),
    ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 5),
    ("MODEL.SEM_SEG_HEAD.CONVS_DIM", 32),
    ("MODEL.SEM_SEG_HEAD.MASK_DIM", 32),
    ("MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS", 1),
    ("MODEL.SEM_SEG_HEAD.TRANSFORMER_DIM_FEEDFORWARD", 64),
    ("MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE", "multi_scale_pixel_decoder"),
    ("MODEL.MASK_FORMER.HIDDEN_DIM", 32),
    ("MODEL.MASK_FORMER.DIM_FEEDFORWARD", 64),
    ("MODEL.MASK_FORMER.NHEADS", 4),
    ("MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", 8),
    ("MODEL.MASK_FORMER.DEC_LAYERS", 4),
    ("MODEL.MASK_FORMER.DROPOUT", 0.0),
    ("MODEL.MASK_FORMER.TRAIN_NUM_POINTS", 64),
    ("MODEL.MASK_FORMER.TEST.PANOPTIC_ON", True),
    ("MODEL.MASK_FORMER.TEST.INSTANCE_ON", True),
]


def tiny_config():
    """A recipe of a model small enough to run in milliseconds."""
    cfg = get_cfg()
    cfg.merge_from_list([part for pair in TINY for part in pair])
    return cfg


@pytest.fixture
def tiny_cfg():
    return tiny_config()


def _make_inputs(counts=(3, 2), sizes=((64, 96), (48, 64)), num_classes=5, seed=0):
    """Training inputs: one image per count, each with that many elliptic targets."""
    g = torch.Generator().manual_seed(seed)
    inputs = []
    for count, (h, w) in zip(counts, sizes):
        y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        centres = torch.rand(count, 2, generator=g) * torch.tensor([h, w])
        distance = ((y - centres[:, 0, None, None]) ** 2 + (x - centres[:, 1, None, None]) ** 2).sqrt()
        instances = Instances(
            (h, w), gt_classes=torch.randint(num_classes, (count,), generator=g), gt_masks=distance < h / 4
        )
        image = torch.randint(0, 256, (3, h, w), generator=g, dtype=torch.uint8)
        inputs.append({"image": image, "instances": instances, "height": h * 2, "width": w})
    return inputs


@pytest.fixture
def make_inputs():
    """A function of target counts and image sizes that draws a training batch."""
    return _make_inputs
