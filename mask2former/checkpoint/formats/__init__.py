"""Weights of other programs -> ours, and back: a table of formats, recognised by what is in a file."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from mask2former.checkpoint.formats.dinat import DINAT
from mask2former.checkpoint.formats.format import Format
from mask2former.checkpoint.formats.hf_backbones import HF_RESNET, HF_SWIN
from mask2former.checkpoint.formats.hf_mask2former import HF_MASK2FORMER
from mask2former.checkpoint.formats.hf_maskformer import HF_MASKFORMER
from mask2former.checkpoint.formats.mmdetection import MMDETECTION_2, MMDETECTION_3
from mask2former.checkpoint.formats.older import OLDER
from mask2former.checkpoint.formats.resnet import CAFFE2, DETECTRON2, TIMM_DEEP_STEM, TORCHVISION
from mask2former.checkpoint.formats.swin import ORIGINAL as SWIN
from mask2former.checkpoint.formats.swin import TIMM as TIMM_SWIN

# in this order: the first that recognises a file's names is taken
FORMATS: tuple[Format, ...] = (
    HF_MASK2FORMER,
    HF_MASKFORMER,
    MMDETECTION_3,
    MMDETECTION_2,
    OLDER,
    TORCHVISION,
    TIMM_DEEP_STEM,
    DETECTRON2,
    CAFFE2,
    SWIN,
    TIMM_SWIN,
    DINAT,
    HF_RESNET,
    HF_SWIN,
)


def find_format(weights: Mapping[str, Tensor]) -> Format | None:
    """The format of these tensors; None where none is recognised, as for our own."""
    return next((one for one in FORMATS if one.recognises(weights)), None)
