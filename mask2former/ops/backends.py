"""Which implementation of an op runs: chosen by device, or by $MASK2FORMER_OPS, and said aloud.

cpp     compiled C++, CPU tensors
cuda    compiled CUDA, CUDA tensors
triton  CUDA tensors, where there is no nvcc
torch   plain torch, any device
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os

import torch

from mask2former.ops import build, device_check
from mask2former.utils.errors import UserError

logger = logging.getLogger(__name__)

VARIABLE = "MASK2FORMER_OPS"
# what each op has for tensors of a device, best first
OPS = {
    "ms_deform_attn": {"cpu": ("cpp", "torch"), "cuda": ("cuda", "triton", "torch")},
    "neighborhood_attention_2d": {"cpu": ("cpp", "torch"), "cuda": ("cuda", "torch")},
    "mask_results": {"cpu": ("cpp", "torch")},
    "winograd": {"cpu": ("cpp", "torch")},
    "mask_losses": {"cpu": ("cpp", "torch")},
    "point_sample": {"cpu": ("cpp", "torch")},
    "masked_attention": {"cpu": ("cpp", "torch")},
    "group_norm": {"cpu": ("cpp", "torch")},
}
# the modules of mask2former.ops that hold them; triton's can be imported only beside a GPU
MODULES = {
    "ms_deform_attn": {"cpp": "cpp", "cuda": "cuda", "triton": "triton_ms_deform_attn"},
    "neighborhood_attention_2d": {"cpp": "neighborhood_cpp", "cuda": "cuda", "torch": "neighborhood_tiled"},
    "mask_results": {"cpp": "mask_results"},
    "winograd": {"cpp": "winograd"},
    "mask_losses": {"cpp": "mask_losses_cpp"},
    "point_sample": {"cpp": "point_sample_cpp"},
    "masked_attention": {"cpp": "masked_attention"},
    "group_norm": {"cpp": "group_norm"},
}
_COMPILED = {"cpp": "cpu", "cuda": "cuda"}  # kind of library


@torch.compiler.assume_constant_result
def backend(op: str, device_type: str) -> str:
    """Name of the implementation that ``op`` uses for tensors on ``device_type`` ("cpu", "cuda", ...).

    Raises UserError when the variable asks for what does not exist, or cannot run on this machine.
    """
    return _choose(op, device_type, os.environ.get(VARIABLE))


@functools.cache
def _choose(op: str, device_type: str, forced: str | None) -> str:
    choices = OPS[op].get(device_type, ("torch",))
    if forced:
        if forced not in choices:
            raise UserError(
                f"{VARIABLE}={forced}, but {op} of {device_type} tensors can use {', '.join(choices)}: "
                f"name one of these, or unset {VARIABLE}"
            )
        choices = (forced,)
    name = next(choice for choice in choices if _serves(op, device_type, choice, required=bool(forced)))
    logger.info("%s on %s: %s%s", op, device_type, name, f" (${VARIABLE})" if forced else "")
    return name


def _serves(op: str, device_type: str, name: str, *, required: bool) -> bool:
    """Whether the implementation can run here and gives the right numbers. Raises UserError for a required one."""
    if not _runs(name, required=required):
        return False
    worst = None if name == "torch" else device_check.misfit(op, MODULES[op][name], device_type)
    if worst is None:
        return True
    problem = (
        f"the {name} implementation of {op} gives wrong numbers on this machine's {device_type}: off by {worst:.3g}"
    )
    if required:
        raise UserError(f"{problem}. Unset {VARIABLE}, and please report it with `python -m mask2former.utils.env`.")
    logger.warning("%s. It is not used; please report it with `python -m mask2former.utils.env`.", problem)
    return False


def _runs(name: str, *, required: bool) -> bool:
    """Whether the implementation can run here; raises UserError where it is required and cannot."""
    if name in _COMPILED:
        return build.library(_COMPILED[name], required=required) is not None
    found = name != "triton" or importlib.util.find_spec("triton") is not None
    if required and not found:
        raise UserError(f"{VARIABLE}={name}, but the package triton is not installed: install it or unset {VARIABLE}")
    return found
