"""Measuring a model on a data set: evaluators, the loop that feeds them, and tables of what they found."""

from mask2former.evaluation.build import EVALUATORS, build_evaluators
from mask2former.evaluation.evaluator import DatasetEvaluator, DatasetEvaluators
from mask2former.evaluation.loop import inference_on_dataset
from mask2former.evaluation.report import json_ready, print_results
from mask2former.evaluation.semantic import SemSegEvaluator

__all__ = [
    "EVALUATORS",
    "DatasetEvaluator",
    "DatasetEvaluators",
    "SemSegEvaluator",
    "build_evaluators",
    "inference_on_dataset",
    "json_ready",
    "print_results",
]
