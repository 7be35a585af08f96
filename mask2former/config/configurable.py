"""Classes and functions that take a config in place of their arguments."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any


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
