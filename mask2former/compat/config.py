"""What user code does with configs before a recipe is read."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
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


def configurable(init: Callable | None = None, *, from_config: Callable | None = None) -> Callable:
    """Let a class or function be called with a config, which `from_config` turns into its arguments.

    Decorates an `__init__` whose class has a classmethod `from_config(cls, cfg, ...) -> dict`, or, given `from_config`,
    a function. A call without a config goes through as it is.
    """
    if init is None:
        return lambda function: _configured(function, from_config)

    @functools.wraps(init)
    def call(self: Any, *args: Any, **kwargs: Any) -> None:
        _configured(functools.partial(init, self), type(self).from_config)(*args, **kwargs)

    return call


def _configured(function: Callable, from_config: Callable) -> Callable:
    def call(*args: Any, **kwargs: Any) -> Any:
        first = args[0] if args else kwargs.get("cfg")
        if not (isinstance(first, Mapping) and hasattr(first, "clone")):  # no config, ours or detectron2's
            return function(*args, **kwargs)
        taken = inspect.signature(from_config).parameters
        takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
        passed = {key: value for key, value in kwargs.items() if takes_all or key in taken}
        kept = {key: value for key, value in kwargs.items() if key not in passed}
        return function(**from_config(*args, **passed), **kept)

    return call
