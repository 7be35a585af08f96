"""Models of this package in the registries of the real detectron2."""

from __future__ import annotations

import importlib
from typing import Any

from mask2former.utils.errors import UserError


def MaskFormer(cfg: Any) -> Any:  # detectron2's registry takes an entry's name from the object
    """What detectron2's `build_model` calls for META_ARCHITECTURE MaskFormer."""
    from mask2former.compat.build import build_from_detectron2  # models are not loaded before one is asked for

    return build_from_detectron2(cfg)


def register_in_detectron2() -> None:
    """Enter this package's model as "MaskFormer" into detectron2's META_ARCH_REGISTRY, once.

    Raises:
        UserError: detectron2 is not installed, or something else has the name there.
    """
    try:
        registry = importlib.import_module("detectron2.modeling").META_ARCH_REGISTRY
    except ImportError as error:
        raise UserError(
            f"detectron2 is needed for its registries, and cannot be imported ({error}). Without it, "
            "mask2former.modeling.build_model builds the same model."
        ) from error
    if MaskFormer.__name__ not in registry:
        registry.register(MaskFormer)
    elif registry.get(MaskFormer.__name__) is not MaskFormer:
        raise UserError(
            f"detectron2's META_ARCH_REGISTRY has another {MaskFormer.__name__!r} already "
            f"({registry.get(MaskFormer.__name__)!r}): import only one of the two packages that register it."
        )
