"""detectron2 keys that have no meaning here: a recipe may carry them, they are left out, and that is said."""

from __future__ import annotations

import logging
from collections.abc import Iterable

logger = logging.getLogger(__name__)

# whole sections: region-based detectors, dense detectors, key points
IGNORED_SECTIONS = frozenset(
    {
        "GLOBAL",
        "MODEL.ANCHOR_GENERATOR",
        "MODEL.FPN",
        "MODEL.PANOPTIC_FPN",
        "MODEL.PROPOSAL_GENERATOR",
        "MODEL.RETINANET",
        "MODEL.ROI_BOX_CASCADE_HEAD",
        "MODEL.ROI_BOX_HEAD",
        "MODEL.ROI_HEADS",
        "MODEL.ROI_KEYPOINT_HEAD",
        "MODEL.ROI_MASK_HEAD",
        "MODEL.RPN",
        "TEST.PRECISE_BN",
    }
)

IGNORED_KEYS = frozenset(
    {
        "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST",
        "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN",
        "DATASETS.PROPOSAL_FILES_TEST",
        "DATASETS.PROPOSAL_FILES_TRAIN",
        "INPUT.MASK_FORMAT",  # masks are bitmaps from the mapper on
        "MODEL.KEYPOINT_ON",
        "MODEL.LOAD_PROPOSALS",
        "MODEL.MASK_ON",  # masks are what every model here predicts
        "MODEL.RESNETS.DEFORM_MODULATED",  # options of DEFORM_ON_PER_STAGE
        "MODEL.RESNETS.DEFORM_NUM_GROUPS",
        "SOLVER.NUM_DECAYS",  # of a schedule that no published recipe of this family uses
        "SOLVER.RESCALE_INTERVAL",
        "TEST.KEYPOINT_OKS_SIGMAS",
        "VERSION",
        "VIS_PERIOD",
    }
)


def is_ignored(key: str) -> bool:
    """Whether the dotted `key`, or a section that holds it, has no meaning here."""
    parts = key.split(".")
    return key in IGNORED_KEYS or any(".".join(parts[:n]) in IGNORED_SECTIONS for n in range(1, len(parts) + 1))


def announce_ignored(keys: Iterable[str]) -> None:
    """Say in one line which keys were left out; nothing when there are none.

    A warning, because recipes are read before the console is set up, and Python shows nothing milder until then.
    """
    names = sorted(set(keys))
    if names:
        logger.warning("Ignored %d detectron2 keys without meaning here: %s", len(names), ", ".join(names))
