"""detectron2's config -> our model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from mask2former.config import CfgNode, get_cfg
from mask2former.config.compat import is_ignored
from mask2former.data.catalog import MetadataCatalog, labels_of
from mask2former.modeling import build_model
from mask2former.structures import LabelSet
from mask2former.utils.errors import UserError


def build_from_detectron2(theirs: Any) -> nn.Module:
    """The model that a config of detectron2 describes with this package's keys; see `convert_config`.

    Things and stuff are those of the first training data set, whose metadata may lie in detectron2's catalog.
    """
    cfg = convert_config(theirs)
    return build_model(cfg, labels=_labels(cfg.DATASETS.TRAIN[0]) if cfg.DATASETS.TRAIN else None)


def convert_config(theirs: Any) -> CfgNode:
    """Our config with the values of detectron2's; keys that only detectron2, or its other projects, know are left out.

    Raises:
        UserError: a value does not fit its key.
    """
    cfg = get_cfg()
    cfg.merge_from_list([word for key, value in _leaves(theirs) if _is_ours(cfg, key) for word in (key, value)])
    return cfg


def _leaves(node: Mapping, prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted names and values; an empty section counts as a value."""
    found: list[tuple[str, Any]] = []
    for key, value in node.items():
        filled = isinstance(value, Mapping) and len(value) > 0
        found += _leaves(value, f"{prefix}{key}.") if filled else [(f"{prefix}{key}", value)]
    return found


def _is_ours(cfg: CfgNode, key: str) -> bool:
    node: Any = cfg
    for word in key.split("."):
        if not isinstance(node, Mapping) or word not in node:
            return False
        node = node[word]
    return not isinstance(node, Mapping) and not is_ignored(key)


def _labels(name: str) -> LabelSet | None:
    """None where the data set has no class names: the model can be built without them."""
    try:
        return labels_of(MetadataCatalog.get(name))
    except UserError:
        return None
