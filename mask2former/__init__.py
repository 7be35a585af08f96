"""Mask classification for semantic, instance, panoptic and video instance segmentation.

Importing the package registers nothing, reads no environment variable and loads none of the rooms below it:
take what you need from `mask2former.config`, `mask2former.modeling`, `mask2former.data` and the others.
"""

__version__ = "0.1.0"
