"""Data sets looked through to the last pixel: everything that is wrong with them, not the first thing alone."""

from mask2former.data.inspection.datasets import Inspection, inspect_dataset, shared_images
from mask2former.data.inspection.declared import register_declared
from mask2former.data.inspection.findings import Finding

__all__ = ["Finding", "Inspection", "inspect_dataset", "register_declared", "shared_images"]
