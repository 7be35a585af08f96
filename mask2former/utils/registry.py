"""Names that a recipe can use, and the objects they stand for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fvcore.common.registry import Registry as _FvcoreRegistry

from mask2former.utils.errors import UserError
from mask2former.utils.text import suggest


class Registry(_FvcoreRegistry):
    """A table from names to objects, filled by decorators.

    On top of fvcore's registry: an object can be registered under a name of its own choice, and asking for an
    unknown name raises a `UserError` with the nearest known one. `name in registry` and iteration over
    `(name, object)` pairs work as there.

        BACKBONE = Registry("BACKBONE")

        @BACKBONE.register()            # under the name of the function or class
        def build_resnet_backbone(...): ...

        @BACKBONE.register(name="D2SwinTransformer")
        def build_swin(...): ...
    """

    def register(self, obj: Any = None, name: str | None = None) -> Any:
        """Enter `obj` as `name` (its own `__name__` when not given); a decorator when `obj` is not given.

        Raises:
            UserError: another object has the name already.
        """
        if obj is None:
            return self._decorator(name)
        key = name or obj.__name__
        if key in self:
            raise UserError(
                f"{key!r} is registered in {self._name} already (by {self._obj_map[key]!r}); choose another name."
            )
        self._do_register(key, obj)
        return obj

    def _decorator(self, name: str | None) -> Callable[[Any], Any]:
        return lambda obj: self.register(obj, name)

    def get(self, name: str) -> Any:
        """The object registered as `name`.

        Raises:
            UserError: nothing is; the message gives the nearest names and all known ones.
        """
        if name not in self:
            known = sorted(self._obj_map)
            listed = ", ".join(known) if known else "none; is the module that registers it listed under IMPORTS?"
            raise UserError(f"{self._name} knows no {name!r}.{suggest(name, known)} Registered: {listed}.")
        return self._obj_map[name]
