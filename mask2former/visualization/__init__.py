"""Pictures of results and ground truth: semantic, panoptic and instance drawings, and contact sheets."""

from mask2former.visualization.contact_sheet import ContactSheet
from mask2former.visualization.draw import draw, draw_instances, draw_panoptic, draw_results, draw_sem_seg
from mask2former.visualization.drawable import Objects, PanopticMap, SemanticMap
from mask2former.visualization.truth import clip_truth, ground_truth, sample_truth, video_truth

__all__ = [
    "ContactSheet",
    "Objects",
    "PanopticMap",
    "SemanticMap",
    "clip_truth",
    "draw",
    "draw_instances",
    "draw_panoptic",
    "draw_results",
    "draw_sem_seg",
    "ground_truth",
    "sample_truth",
    "video_truth",
]
