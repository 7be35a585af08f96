"""What user code does with configs before a recipe is read."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from mask2former.compat.detectron2_registry import register_in_detectron2
from mask2former.compat.importer import real_detectron2
from mask2former.config import CfgNode, get_cfg


def add_maskformer2_config(cfg: Any) -> None:
    """Give `cfg` every key of this package that it lacks, with its default: nothing, for a config of `get_cfg`.

    A config of the real detectron2 gets the keys, and detectron2's registry the model, so that its own `build_model`
    finds what META_ARCHITECTURE MaskFormer names.
    """
    _fill(cfg, get_cfg())
    if not isinstance(cfg, CfgNode) and real_detectron2():
        register_in_detectron2()


def add_deeplab_config(cfg: Any) -> None:
    """As `add_maskformer2_config`: the keys of DeepLab's backbone and head are among ours."""
    _fill(cfg, get_cfg())


def _fill(node: Any, defaults: Mapping) -> None:
    for key, default in defaults.items():
        if key not in node:
            node[key] = type(node)(default) if isinstance(default, Mapping) else deepcopy(default)
        elif isinstance(default, Mapping):
            _fill(node[key], default)
