"""Pictures of results: semantic, panoptic and instance drawings, and contact sheets."""

from mask2former.visualization.contact_sheet import ContactSheet
from mask2former.visualization.draw import draw_instances, draw_panoptic, draw_results, draw_sem_seg

__all__ = ["ContactSheet", "draw_instances", "draw_panoptic", "draw_results", "draw_sem_seg"]
