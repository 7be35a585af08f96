"""The operators the models are built on."""

from mask2former.ops.ms_deform_attn import ms_deform_attn, ms_deform_attn_raw
from mask2former.ops.neighborhood_attn import neighborhood_attention_2d
from mask2former.ops.point_sample import random_points, sample_map, sample_mask, uncertain_points

__all__ = [
    "ms_deform_attn",
    "ms_deform_attn_raw",
    "neighborhood_attention_2d",
    "random_points",
    "sample_map",
    "sample_mask",
    "uncertain_points",
]
