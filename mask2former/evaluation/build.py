"""From a recipe to the evaluators of a data set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mask2former.data.catalog import MetadataCatalog, labels_of
from mask2former.evaluation.evaluator import DatasetEvaluator
from mask2former.evaluation.semantic import SemSegEvaluator
from mask2former.structures.labels import LabelSet
from mask2former.utils.errors import UserError
from mask2former.utils.text import suggest

if TYPE_CHECKING:
    from mask2former.config import CfgNode


def _semantic(cfg: CfgNode, labels: LabelSet, output_dir: Path) -> list[DatasetEvaluator]:
    if not cfg.MODEL.MASK_FORMER.TEST.SEMANTIC_ON:
        raise UserError(
            "A semantic data set is evaluated on semantic results, but the recipe turns them off. "
            "Set MODEL.MASK_FORMER.TEST.SEMANTIC_ON to True."
        )
    return [SemSegEvaluator(labels, output_dir, save_predictions=cfg.TEST.SAVE_PREDICTIONS)]


# metadata.evaluator_type -> function of (cfg, labels, output_dir) that makes the evaluators; user code may add its own
EVALUATORS: dict[str, Callable[[CfgNode, LabelSet, Path], list[DatasetEvaluator]]] = {
    "sem_seg": _semantic,
}


def build_evaluators(cfg: CfgNode, dataset_name: str, output_dir: str | Path) -> list[DatasetEvaluator]:
    """The evaluators that a data set's `evaluator_type` asks for; what they write goes to `output_dir`.

    Raises:
        UserError: the data set has no evaluator type, one that is unknown, or one the model's results cannot serve.
    """
    metadata = MetadataCatalog.get(dataset_name)
    kind = metadata.get("evaluator_type", None)
    if kind is None:
        raise UserError(
            f"Data set '{dataset_name}' does not say how it is evaluated. "
            f"Set evaluator_type in its metadata to one of {sorted(EVALUATORS)}."
        )
    if kind not in EVALUATORS:
        raise UserError(
            f"Data set '{dataset_name}' asks for the evaluator type '{kind}', which is not available; "
            f"there is {sorted(EVALUATORS)}.{suggest(kind, EVALUATORS)} Name another data set in DATASETS.TEST, change "
            "evaluator_type in its metadata, or add to mask2former.evaluation.EVALUATORS in a module under IMPORTS."
        )
    return EVALUATORS[kind](cfg, labels_of(metadata), Path(output_dir))
