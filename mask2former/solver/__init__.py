"""Optimisers, learning-rate schedules and gradient clipping."""

from mask2former.solver.build import build_clipper, build_lr_scheduler, build_optimizer
from mask2former.solver.clipping import GradientClipper
from mask2former.solver.param_groups import make_param_groups
from mask2former.solver.schedules import make_scheduler, restore_scheduler

__all__ = [
    "GradientClipper",
    "build_clipper",
    "build_lr_scheduler",
    "build_optimizer",
    "make_param_groups",
    "make_scheduler",
    "restore_scheduler",
]
