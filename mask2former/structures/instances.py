"""Annotations or predictions of one image, one row per object."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import torch


class Instances:
    """Named fields of equal length, with the size of the image they lie in.

    ``Instances((height, width), gt_classes=[N] int64, gt_masks=[N,H,W] bool)``; every field has N entries along
    its first axis, is read as an attribute, and is indexed together with the others.
    """

    def __init__(self, image_size: tuple[int, int], **fields: Any):
        object.__setattr__(self, "_image_size", (int(image_size[0]), int(image_size[1])))
        object.__setattr__(self, "_fields", {})
        for name, value in fields.items():
            self.set(name, value)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self._image_size

    def set(self, name: str, value: Any) -> None:
        """Add or replace a field; raises ValueError when its length differs from the other fields'."""
        others = [n for n in self._fields if n != name]
        if others and len(value) != len(self._fields[others[0]]):
            raise ValueError(
                f"Instances field '{name}' has {len(value)} rows, "
                f"but '{others[0]}' has {len(self._fields[others[0]])}: all fields describe the same objects."
            )
        self._fields[name] = value

    def has(self, name: str) -> bool:
        return name in self._fields

    def get(self, name: str) -> Any:
        return getattr(self, name)

    def remove(self, name: str) -> None:
        del self._fields[name]

    def get_fields(self) -> dict[str, Any]:
        return self._fields

    def __setattr__(self, name: str, value: Any) -> None:
        self.set(name, value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._fields:
            raise AttributeError(f"Instances has no field '{name}'; it has {sorted(self.__dict__.get('_fields', {}))}")
        return self._fields[name]

    def __getstate__(self) -> dict[str, Any]:
        return {"image_size": self._image_size, "fields": self._fields}

    def __setstate__(self, state: dict[str, Any]) -> None:
        object.__setattr__(self, "_image_size", state["image_size"])
        object.__setattr__(self, "_fields", state["fields"])

    def __len__(self) -> int:
        for value in self._fields.values():
            return len(value)
        raise ValueError("Instances without fields has no length; set a field first.")

    def __iter__(self):
        raise TypeError("Instances is indexed, not iterated: use instances[i].")

    def __getitem__(self, item: int | slice | torch.Tensor) -> Instances:
        """Rows chosen by an index, a slice, or an index or boolean tensor [N]."""
        if isinstance(item, Integral):
            if not -len(self) <= item < len(self):
                raise IndexError(f"Instances index {item} out of range for {len(self)} rows")
            item = slice(item, item + 1 or None)
        return Instances(self._image_size, **{name: _select(value, item) for name, value in self._fields.items()})

    def to(self, *args: Any, **kwargs: Any) -> Instances:
        """A copy with every tensor-like field moved, arguments as ``Tensor.to``."""
        moved = {n: v.to(*args, **kwargs) if hasattr(v, "to") else v for n, v in self._fields.items()}
        return Instances(self._image_size, **moved)

    @staticmethod
    def cat(parts: list[Instances]) -> Instances:
        """Concatenate along the objects; all parts lie in an image of the same size and have the same fields."""
        first = parts[0]
        if any(p.image_size != first.image_size or set(p._fields) != set(first._fields) for p in parts):
            raise ValueError("Instances.cat needs parts of one image size with the same fields.")
        return Instances(first.image_size, **{n: _concatenate([p._fields[n] for p in parts]) for n in first._fields})

    def __repr__(self) -> str:
        h, w = self._image_size
        fields = ", ".join(f"{n}: {tuple(v.shape) if hasattr(v, 'shape') else len(v)}" for n, v in self._fields.items())
        return f"Instances({h}x{w}; {fields})"


def _select(value: Any, item: slice | torch.Tensor) -> Any:
    if isinstance(value, (list, tuple)) and torch.is_tensor(item):
        rows = item.nonzero().flatten() if item.dtype == torch.bool else item
        return [value[i] for i in rows.tolist()]
    return value[item]


def _concatenate(values: list[Any]) -> Any:
    if torch.is_tensor(values[0]):
        return torch.cat(values)
    if isinstance(values[0], (list, tuple)):
        return [row for value in values for row in value]
    return type(values[0]).cat(values)
