"""Measuring a model on a data set: evaluators, the loop that feeds them, and tables of what they found."""

from mask2former.evaluation.build import EVALUATORS, build_evaluators
from mask2former.evaluation.cityscapes import CityscapesInstanceEvaluator, CityscapesSemSegEvaluator
from mask2former.evaluation.coco_ap import average_precision
from mask2former.evaluation.evaluator import DatasetEvaluator, DatasetEvaluators
from mask2former.evaluation.frame_by_frame import FrameByFrame
from mask2former.evaluation.instance import InstanceEvaluator
from mask2former.evaluation.loop import inference_on_dataset
from mask2former.evaluation.panoptic import PanopticEvaluator
from mask2former.evaluation.panoptic_files import evaluate_panoptic_folder
from mask2former.evaluation.pq import PanopticQuality, pq_stats
from mask2former.evaluation.report import json_ready, print_results
from mask2former.evaluation.semantic import SemSegEvaluator
from mask2former.evaluation.tta import SemanticTTA
from mask2former.evaluation.video import VideoInstanceEvaluator

__all__ = [
    "EVALUATORS",
    "CityscapesInstanceEvaluator",
    "CityscapesSemSegEvaluator",
    "DatasetEvaluator",
    "DatasetEvaluators",
    "FrameByFrame",
    "InstanceEvaluator",
    "PanopticEvaluator",
    "PanopticQuality",
    "SemSegEvaluator",
    "SemanticTTA",
    "VideoInstanceEvaluator",
    "average_precision",
    "build_evaluators",
    "evaluate_panoptic_folder",
    "inference_on_dataset",
    "json_ready",
    "pq_stats",
    "print_results",
]
