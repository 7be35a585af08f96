"""Gradient clipping, between backward and the optimiser's step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from mask2former.utils.errors import UserError
from mask2former.utils.text import suggest


def _full_model(parameters: Sequence[torch.Tensor], limit: float, norm_type: float) -> None:
    clip_grad_norm_(parameters, limit, norm_type)


def _each_norm(parameters: Sequence[torch.Tensor], limit: float, norm_type: float) -> None:
    for parameter in parameters:
        clip_grad_norm_(parameter, limit, norm_type)


def _each_value(parameters: Sequence[torch.Tensor], limit: float, norm_type: float) -> None:
    clip_grad_value_(parameters, limit)


_METHODS = {"full_model": _full_model, "norm": _each_norm, "value": _each_value}


@dataclass(frozen=True)
class GradientClipper:
    """Limits gradients in place; call it with the parameters.

    method     "full_model": the norm of all gradients taken together; "norm": that of each parameter; "value": each
               entry, to [-limit, limit]
    limit      largest norm or value, above 0
    norm_type  order of the norm, 2.0 or math.inf for instance; not used by "value"
    """

    method: str
    limit: float
    norm_type: float = 2.0

    def __post_init__(self):
        if self.method not in _METHODS:
            raise UserError(
                f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE is {self.method!r}; expected one of {', '.join(_METHODS)}."
                f"{suggest(self.method, _METHODS)}"
            )
        if not self.limit > 0:
            raise UserError(
                f"SOLVER.CLIP_GRADIENTS.CLIP_VALUE is {self.limit}, which would leave no gradient; expected more than "
                "0. Set SOLVER.CLIP_GRADIENTS.ENABLED to False to train without clipping."
            )

    def __call__(self, parameters: Sequence[torch.Tensor]) -> None:
        _METHODS[self.method](parameters, self.limit, self.norm_type)
