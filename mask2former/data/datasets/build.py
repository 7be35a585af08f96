"""Recipe -> registered data sets and their checked records."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

from mask2former.data.catalog import DatasetCatalog, MetadataCatalog, labels_of
from mask2former.data.datasets.builtin import register_builtin
from mask2former.data.datasets.checks import check_class_count, check_ignore_label, check_pixels
from mask2former.data.datasets.custom import is_declared, register_custom, register_unused
from mask2former.data.datasets.joint import with_classes_of_videos
from mask2former.data.datasets.records import complete_records
from mask2former.data.datasets.video_records import is_video
from mask2former.structures import LabelSet
from mask2former.utils.errors import UserError

logger = logging.getLogger(__name__)


def register_datasets(cfg) -> None:
    """Register the published data sets below $DETECTRON2_DATASETS (else ./datasets) and those of DATASETS.CUSTOM.

    An entry that a `_BASE_` brought and no data set of TRAIN or TEST comes from may lack its files.
    """
    register_builtin(os.environ.get("DETECTRON2_DATASETS", "datasets"))
    used = {*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST}
    for name, entry in cfg.DATASETS.CUSTOM.items():
        register = register_custom if is_declared(name, entry, used) else register_unused
        register(name, entry)


def infer_num_classes(cfg) -> None:
    """Set MODEL.SEM_SEG_HEAD.NUM_CLASSES of an unfrozen recipe that does not give it: the classes of its data set.

    The first one of DATASETS.TRAIN counts, else of DATASETS.TEST. Call it after `register_datasets`.

    Raises:
        UserError: the data set is unknown, or its classes cannot be read.
    """
    names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
    if not names or cfg.given("MODEL.SEM_SEG_HEAD.NUM_CLASSES"):
        return
    count = _labels(names[0]).num_classes
    if count != cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES:
        cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = count
        logger.info("MODEL.SEM_SEG_HEAD.NUM_CLASSES is not given: %d, the classes of data set %r", count, names[0])


def _labels(name: str) -> LabelSet:
    """The labels of data set `name`; an unknown name is a UserError before metadata is made for it."""
    DatasetCatalog.source(name)
    return labels_of(MetadataCatalog.get(name))


# name -> (source, labels, masks needed, records): files are read and checked once per registration, not at every
# evaluation
_checked: dict[str, tuple] = {}


def checked_records(cfg, name: str, masks_needed: bool, own_classes: bool = False) -> list[dict]:
    """The records of data set `name`, complete, after every check that needs no training.

    Args:
        cfg: the recipe.
        name: of the data set.
        masks_needed: whether records must have the ground truth that the data set's `evaluator_type` asks for.
        own_classes: whether its classes may be others than the model's.

    Raises:
        UserError: anything that the reader of the data set, datasets/records.py and datasets/checks.py find.
    """
    source, labels, head = DatasetCatalog.source(name), _labels(name), cfg.MODEL.SEM_SEG_HEAD
    known = _checked.get(name)
    if not own_classes:
        check_class_count(name, labels, head.NUM_CLASSES)
    if not known or known[0] is not source or known[1] != labels or known[2] < masks_needed:
        check_ignore_label(name, labels, head.IGNORE_VALUE)
        metadata = MetadataCatalog.get(name)
        # objects of a set "separated" from its stuff maps have a list of classes of their own
        num_classes = max(labels.num_classes, len(metadata.get("thing_classes") or ()))
        records = complete_records(name, source(), num_classes, metadata.get("evaluator_type"), masks_needed)
        check_pixels(records, labels)
        known = _checked[name] = (source, labels, masks_needed, records)
    return known[-1]


def forget_training_records(cfg) -> None:
    """Give up the records of data sets that are trained on and not evaluated: gigabytes for a set like COCO's."""
    for name in {*cfg.DATASETS.TRAIN} - {*cfg.DATASETS.TEST}:
        _checked.pop(name, None)


def check_datasets(cfg, training: bool = True) -> None:
    """Check the data sets of DATASETS.TEST, which are to be evaluated, and with `training` those of DATASETS.TRAIN.

    Raises:
        UserError: one is not as it must be.
    """
    trained = train_records(cfg)[1] if training else None
    for name in cfg.DATASETS.TEST:
        # the truth of published validation videos is on a server, which takes results.json
        needed = MetadataCatalog.get(name).get("evaluator_type") not in (None, "ytvis")
        checked_records(cfg, name, masks_needed=needed)
        difference = trained.difference(_labels(name)) if trained else ""
        if difference:
            logger.warning("classes of DATASETS.TRAIN and of %r in DATASETS.TEST differ: %s", name, difference)


def train_records(cfg) -> tuple[list[dict], LabelSet]:
    """All training records and the labels of the first data set, which those of the others are.

    Images that are trained on beside videos may have other classes: see `with_classes_of_videos`.
    """
    names = cfg.DATASETS.TRAIN
    if not names:
        raise UserError("DATASETS.TRAIN is empty; name at least one data set, as in DATASETS.TRAIN '[shapes_train]'.")
    known, first = [*checked_records(cfg, names[0], masks_needed=True)], _labels(names[0])
    for name in names[1:]:
        labels = _labels(name)
        difference = first.difference(labels)
        records = checked_records(cfg, name, masks_needed=True, own_classes=bool(difference))
        if difference and is_video(known[0]) and not is_video(records[0]):
            known += with_classes_of_videos(name, records, labels, names[0], first)
            continue
        if not difference and labels.ignore_label != first.ignore_label:
            difference = f"ignore value {first.ignore_label} against {labels.ignore_label}"
        if difference:
            raise UserError(
                f"The data sets {names[0]!r} and {name!r} of DATASETS.TRAIN have different labels: {difference}. "
                "Train on sets of the same classes and ignore value, or take one of them out."
                + _joint_remedy(known[0], records[0])
            )
        known += records
    return known, first


def _joint_remedy(first: Mapping, other: Mapping) -> str:
    if is_video(first) or not is_video(other):
        return ""
    return " Images beside videos may have other classes where the videos come first."
