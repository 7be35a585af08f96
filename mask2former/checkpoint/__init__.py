"""Weights and training states in files: safe to read, whole when written, explicit about what did not fit."""

from mask2former.checkpoint.backbone_weights import load_backbone_weights
from mask2former.checkpoint.checkpointer import Checkpointer
from mask2former.checkpoint.files import load_checkpoint_file
from mask2former.checkpoint.loading import load_weights
from mask2former.checkpoint.report import LoadReport, Reshaped
from mask2former.checkpoint.rng import capture_rng, preserved_rng, restore_rng

__all__ = [
    "Checkpointer",
    "LoadReport",
    "Reshaped",
    "capture_rng",
    "load_backbone_weights",
    "load_checkpoint_file",
    "load_weights",
    "preserved_rng",
    "restore_rng",
]
