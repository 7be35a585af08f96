"""detectron2's readers of data sets, where they do other than ours."""

from __future__ import annotations

import logging
from pathlib import Path

from mask2former.data.datasets.folder import pair_files
from mask2former.utils.text import some

logger = logging.getLogger(__name__)


def load_sem_seg(
    gt_root: str | Path, image_root: str | Path, gt_ext: str = "png", image_ext: str = "jpg"
) -> list[dict]:
    """As `mask2former.data.load_sem_seg`, but files without partner are left out with a warning, as in detectron2."""
    records, lonely = pair_files(gt_root, image_root, gt_ext, image_ext)
    if lonely:
        logger.warning("%d files without partner are left out: %s", len(lonely), some(lonely))
    return records
