"""detectron2's RandomRotation, with its arguments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from mask2former.compat.pieces import Piece, moved_points, size_of, uniform
from mask2former.structures import Polygons


class RandomRotation(Piece):
    """Rotation, counter-clockwise.

    Args:
        angle: degrees: one number, the two ends of a range, or values to choose from ("choice").
        expand: enlarge the image to hold all of it; it is then rotated about its middle.
        center: (x, y) as shares of the image, or by `sample_style` a range or a choice of such; None: the middle.
        sample_style: "range" or "choice".
        interp: of no effect; images are sampled bilinearly, masks at the nearest pixel.
    """

    def __init__(
        self,
        angle: float | Sequence[float],
        expand: bool = True,
        center: Sequence[Any] | None = None,
        sample_style: str = "range",
        interp: Any = None,
    ):
        super().__init__()
        if sample_style not in ("range", "choice"):
            raise ValueError(f"sample_style is {sample_style!r}; expected 'range' or 'choice'")
        self.in_range = sample_style == "range"
        self.angles = [angle, angle] if isinstance(angle, (int, float)) else list(angle)
        self.centers = [center, center] if center is not None and isinstance(center[0], (int, float)) else center
        self.expand = expand

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = size_of(flat_inputs)
        angle, center = self._drawn(self.angles), (0.5, 0.5)
        if self.centers is not None and not self.expand:
            low, high = self.centers[0], self.centers[-1]
            center = [uniform(a, b) for a, b in zip(low, high)] if self.in_range else self._drawn(self.centers)
        middle = [center[0] * width, center[1] * height]
        return {"angle": angle, "center": middle, **(self._room(height, width, angle) if self.expand else {})}

    @staticmethod
    def _room(height: int, width: int, angle: float) -> dict[str, Any]:
        """What is padded before the rotation, and the window that is cut out after it, to hold all of the image."""
        cos, sin = abs(math.cos(math.radians(angle))), abs(math.sin(math.radians(angle)))
        sides = []
        for side, new in ((height, height * cos + width * sin), (width, height * sin + width * cos)):
            new = round(new)
            padded = max(side, new)
            sides.append(((padded - side) // 2, padded - side - (padded - side) // 2, (padded - new) // 2, new))
        (top, bottom, first_row, h), (left, right, first_column, w) = sides
        window = {"top": first_row, "left": first_column, "height": h, "width": w}
        return {"padding": [left, top, right, bottom], "window": window}

    def _drawn(self, values: Sequence[Any]) -> Any:
        if self.in_range:
            return uniform(values[0], values[-1])
        return values[int(torch.randint(0, len(values), ()))]

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        fill = self.fill_of(inpt)
        (cx, cy), left, top, window = params["center"], 0, 0, params.get("window")
        if window:
            left, top = params["padding"][:2]
            inpt = self._call_kernel(F.pad, inpt, padding=params["padding"], fill=fill)
        if isinstance(inpt, Polygons):
            vertices = moved_points(inpt.as_subclass(torch.Tensor).numpy(), _turn(params["angle"], cx + left, cy + top))
            inpt = inpt.moved(torch.from_numpy(vertices), inpt.canvas_size)
        else:
            bilinear, center = v2.InterpolationMode.BILINEAR, [cx + left, cy + top]
            inpt = self._call_kernel(
                F.rotate, inpt, angle=params["angle"], interpolation=bilinear, center=center, fill=fill
            )
        return self._call_kernel(F.crop, inpt, **window) if window else inpt

    def matrix(self, params: dict[str, Any]) -> np.ndarray:
        matrix = _turn(params["angle"], *params["center"])
        if "window" in params:
            matrix[:, 2] += params["padding"][:2]
            matrix[:, 2] -= [params["window"]["left"], params["window"]["top"]]
        return matrix


def _turn(angle: float, x: float, y: float) -> np.ndarray:
    """Rotation [2,3] by degrees about (x, y); counter-clockwise, with y pointing down."""
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    turn = np.array([[cos, sin], [-sin, cos]])
    return np.column_stack([turn, [x, y] - turn @ [x, y]])
