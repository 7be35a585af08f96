"""From a recipe to the evaluators of a data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mask2former.data.catalog import MetadataCatalog
from mask2former.evaluation.cityscapes import CityscapesInstanceEvaluator, CityscapesSemSegEvaluator
from mask2former.evaluation.evaluator import DatasetEvaluator
from mask2former.evaluation.instance import InstanceEvaluator
from mask2former.evaluation.panoptic import PanopticEvaluator
from mask2former.evaluation.semantic import SemSegEvaluator
from mask2former.evaluation.video import VideoInstanceEvaluator
from mask2former.utils.errors import UserError
from mask2former.utils.text import suggest

if TYPE_CHECKING:
    from mask2former.config import CfgNode


@dataclass(frozen=True)
class EnabledResults:
    """Makes the evaluators of those results that a recipe turns on.

    evaluators  flag under MODEL.MASK_FORMER.TEST -> class of the evaluator that takes the result
    """

    evaluators: dict[str, type[DatasetEvaluator]]

    def __call__(self, cfg: CfgNode, name: str, output_dir: Path) -> list[DatasetEvaluator]:
        flags = cfg.MODEL.MASK_FORMER.TEST
        wanted = [evaluator for flag, evaluator in self.evaluators.items() if getattr(flags, flag)]
        if not wanted:
            keys = " or ".join(f"MODEL.MASK_FORMER.TEST.{flag}" for flag in self.evaluators)
            raise UserError(
                f"Nothing of data set '{name}' can be evaluated: the recipe turns every result off that its "
                f"annotations serve. Set {keys} to True."
            )
        return [evaluator(name, output_dir, save_predictions=cfg.TEST.SAVE_PREDICTIONS) for evaluator in wanted]


_PANOPTIC = EnabledResults(
    {"PANOPTIC_ON": PanopticEvaluator, "INSTANCE_ON": InstanceEvaluator, "SEMANTIC_ON": SemSegEvaluator}
)

# metadata.evaluator_type -> function of (cfg, name, output_dir) that makes the evaluators of the data set of that
# name; user code may add its own
EVALUATORS: dict[str, Callable[[CfgNode, str, Path], list[DatasetEvaluator]]] = {
    "sem_seg": EnabledResults({"SEMANTIC_ON": SemSegEvaluator}),
    "coco": EnabledResults({"INSTANCE_ON": InstanceEvaluator}),
    "coco_panoptic_seg": _PANOPTIC,
    "ade20k_panoptic_seg": _PANOPTIC,
    "mapillary_vistas_panoptic_seg": _PANOPTIC,
    "cityscapes_panoptic_seg": EnabledResults(
        {
            "PANOPTIC_ON": PanopticEvaluator,
            "SEMANTIC_ON": CityscapesSemSegEvaluator,
            "INSTANCE_ON": CityscapesInstanceEvaluator,
        }
    ),
    "cityscapes_instance": EnabledResults({"INSTANCE_ON": CityscapesInstanceEvaluator}),
    "cityscapes_sem_seg": EnabledResults({"SEMANTIC_ON": CityscapesSemSegEvaluator}),
    "ytvis": EnabledResults({"INSTANCE_ON": VideoInstanceEvaluator}),
}


def build_evaluators(cfg: CfgNode, dataset_name: str, output_dir: str | Path) -> list[DatasetEvaluator]:
    """The evaluators that a data set's `evaluator_type` asks for; what they write goes to `output_dir`.

    Raises:
        UserError: the data set has no evaluator type, one that is unknown, or one the model's results cannot serve.
    """
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type", None)
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
    return EVALUATORS[kind](cfg, dataset_name, Path(output_dir))
