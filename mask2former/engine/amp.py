"""Which precision the forward pass runs in."""

from __future__ import annotations

import logging

import torch

from mask2former.utils.errors import UserError
from mask2former.utils.text import suggest

logger = logging.getLogger(__name__)

AMP_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def choose_amp_dtype(enabled: bool, name: str, device: torch.device) -> torch.dtype | None:
    """The dtype for autocast, or None for full precision; a choice that differs from the recipe's is logged.

    Args:
        enabled: SOLVER.AMP.ENABLED.
        name: SOLVER.AMP.DTYPE, "float16" or "bfloat16".
        device: where the model is.
    """
    if name not in AMP_DTYPES:
        raise UserError(f"SOLVER.AMP.DTYPE is {name!r}; expected {' or '.join(AMP_DTYPES)}.{suggest(name, AMP_DTYPES)}")
    if not enabled:
        return None
    dtype = AMP_DTYPES[name]
    if dtype is torch.float16 and device.type != "cuda":
        # its narrow range needs loss scaling, and nothing is gained: CPUs have no fast float16 units to speak of
        logger.warning(
            "SOLVER.AMP asks for float16, which pays on CUDA only: training on %s in float32 instead. "
            "SOLVER.AMP.DTYPE bfloat16 uses bfloat16 here, too.",
            device.type,
        )
        return None
    if dtype is torch.bfloat16 and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise UserError(
            f"SOLVER.AMP.DTYPE is bfloat16, which {torch.cuda.get_device_name(device)} does not have. "
            "Set it to float16, or SOLVER.AMP.ENABLED to False."
        )
    return dtype
