"""detectron2's way to write augmentations, as torchvision transforms.

There an `Augmentation` looks at an image (uint8 [H,W,3], a NumPy array) and returns a `Transform`, which then moves
images, maps of ids and coordinates, each by a method of its own. Here both are torchvision v2 transforms: they move
tv_tensors (Image, Mask, Polygons) together, so that lists of either kind can be given to a mapper.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from mask2former.structures import Polygons

# H W size in pixels, N points; coordinates are (x, y), (0, 0) being the upper left corner of the upper left pixel


class Transform:
    """One change of one image; a subclass says what it does to images, and, where it moves pixels, to coordinates."""

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """An image [H,W,C] or [H,W], uint8 or float of the same range."""
        raise NotImplementedError

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Points, float [N,2]."""
        raise NotImplementedError(f"{type(self).__name__} has no apply_coords, which polygons and boxes need")

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """A map of ids [H,W], or one of ids in colours [H,W,3]."""
        return self.apply_image(segmentation)

    def apply_box(self, box: np.ndarray) -> np.ndarray:
        """Boxes [N,4] (x0, y0, x1, y1): the boxes around their moved corners."""
        corners = np.asarray(box, float).reshape(-1, 4)[:, [0, 1, 2, 1, 0, 3, 2, 3]]
        moved = self.apply_coords(corners.reshape(-1, 2)).reshape(-1, 4, 2)
        return np.concatenate([moved.min(1), moved.max(1)], axis=1)

    def apply_polygons(self, polygons: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Rings, float [v,2] each."""
        return [self.apply_coords(ring) for ring in polygons]

    def _set_attributes(self, params: dict[str, Any] | None = None) -> None:
        """Keep the arguments of `__init__`, as detectron2's transforms do: `self._set_attributes(locals())`."""
        _keep(self, params)


class TransformList(Transform):
    """Transforms, one after the other."""

    def __init__(self, transforms: Sequence[Transform]):
        self.transforms = list(transforms)

    def _chained(self, method: str, value: Any) -> Any:
        for transform in self.transforms:
            value = getattr(transform, method)(value)
        return value

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        return self._chained("apply_image", img)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return self._chained("apply_coords", coords)

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return self._chained("apply_segmentation", segmentation)

    def __add__(self, other: Transform | TransformList) -> TransformList:
        return TransformList([*self.transforms, *getattr(other, "transforms", [other])])

    def __len__(self) -> int:
        return len(self.transforms)

    def __getitem__(self, index: int) -> Transform:
        return self.transforms[index]


class AugInput:
    """An image with what augmentations may look at and move; they change it in place.

    image: uint8 [H,W,3]; boxes: [N,4] (x0, y0, x1, y1) or None; sem_seg: class ids [H,W] or None.
    """

    def __init__(self, image: np.ndarray, *, boxes: np.ndarray | None = None, sem_seg: np.ndarray | None = None):
        self.image, self.boxes, self.sem_seg = image, boxes, sem_seg

    def transform(self, transform: Transform) -> None:
        """Move everything by one transform."""
        self.image = transform.apply_image(self.image)
        if self.boxes is not None:
            self.boxes = transform.apply_box(self.boxes)
        if self.sem_seg is not None:
            self.sem_seg = transform.apply_segmentation(self.sem_seg)

    def apply_augmentations(self, augmentations: Sequence[Any]) -> TransformList:
        """Draw and apply them in order; returns what was drawn, for annotations."""
        return AugmentationList(augmentations)(self)


class Augmentation(v2.Transform):
    """Base of users' augmentations: `get_transform(self, image)` draws a `Transform`.

    `get_transform` may take `sem_seg`, too, where the sample has a map of class ids.
    """

    _transformed_types = (tv_tensors.Image, tv_tensors.Mask, Polygons)
    mask_fill = 255  # class id of pixels that come into a map of class ids from outside the image

    def get_transform(self, image: np.ndarray) -> Transform:
        """What is to be done to this image."""
        raise NotImplementedError

    def __call__(self, *inputs: Any) -> Any:
        """Of an `AugInput`: change it and return what was drawn. Of tv_tensors: the changed ones."""
        if len(inputs) == 1 and isinstance(inputs[0], AugInput):
            drawn = _draw(self.get_transform, inputs[0].image, inputs[0].sem_seg)
            inputs[0].transform(drawn)
            return drawn
        return self.forward(*inputs)  # not Module.__call__: subclasses need not call __init__

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        image = next(as_array(_frames(i)[0]) for i in flat_inputs if isinstance(i, tv_tensors.Image))
        sem_seg = next((as_array(i) for i in flat_inputs if isinstance(i, tv_tensors.Mask) and i.ndim == 2), None)
        return {"drawn": _draw(self.get_transform, image, sem_seg)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return _moved(inpt, params["drawn"])

    def _init(self, params: dict[str, Any]) -> None:
        """Keep the arguments of `__init__`, as detectron2's augmentations do: `self._init(locals())`."""
        _keep(self, params)

    def _rand_range(self, low: float = 1.0, high: float | None = None) -> float:
        """A number in [low, high), or in [0, low)."""
        low, high = (0.0, low) if high is None else (low, high)
        return low + float(torch.rand(())) * (high - low)


class Fixed(Augmentation):
    """A `Transform` where an augmentation is expected: the same for every image."""

    def __init__(self, transform: Transform):
        super().__init__()
        self.drawn = transform

    def get_transform(self, image: np.ndarray) -> Transform:
        return self.drawn


class Replay(Transform):
    """What a torchvision transform does to one image, on arrays: its random numbers are drawn again from one state."""

    def __init__(self, step: Callable, image: np.ndarray, sem_seg: np.ndarray | None):
        self.step, self.state = step, torch.get_rng_state()
        self.seen = [] if sem_seg is None else [as_ids(sem_seg)]  # which it may look at
        self.image = as_image(image)
        step(self.image, *self.seen)  # leaves the generator where one use leaves it

    def _again(self, image: tv_tensors.Image, *more: Any) -> Sequence[Any]:
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self.state)
            moved = self.step(image, *self.seen, *more)
        return moved if isinstance(moved, (tuple, list)) else [moved]

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        moved = as_array(self._again(as_image(img))[0])
        return moved[:, :, 0] if img.ndim == 2 else moved

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return as_map(self._again(self.image, as_mask(segmentation))[-1])

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        size = tuple(self.image.shape[-2:])
        points = Polygons(np.asarray(coords, float), [len(coords)], [0], 1, size)
        return self._again(self.image, points)[-1].as_subclass(torch.Tensor).numpy()


class Drawing(Augmentation):
    """An augmentation of the installed detectron2, or one that only looks like it."""

    def __init__(self, augmentation: Any):
        super().__init__()
        self.augmentation = augmentation

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        self.get_transform = self.augmentation.get_transform  # its own signature says what it looks at
        return super().make_params(flat_inputs)


class AugmentationList(v2.Compose):
    """Augmentations in order, of either world."""

    def __init__(self, augs: Sequence[Any]):
        super().__init__([as_augmentation(aug) for aug in augs] or [v2.Identity()])

    def __call__(self, *inputs: Any) -> Any:
        if len(inputs) == 1 and isinstance(inputs[0], AugInput):
            return TransformList([_applied(aug, inputs[0]) for aug in self.transforms])
        return self.forward(*inputs)


def _applied(aug: Any, given: AugInput) -> Transform:
    """Change `given`; returns what was drawn."""
    if isinstance(aug, (Augmentation, AugmentationList)):
        return aug(given)
    drawn = Replay(aug, given.image, given.sem_seg)
    given.transform(drawn)
    return drawn


def as_augmentation(aug: Any) -> Callable:
    """`aug` as something that moves tv_tensors: transforms of detectron2's kind are wrapped, others stay.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(aug, torch.nn.Module):
        return aug
    if hasattr(aug, "augs"):  # its AugmentationList
        return AugmentationList(aug.augs)
    if hasattr(aug, "get_transform"):
        return Drawing(aug)
    if hasattr(aug, "apply_image"):
        return Fixed(aug)
    raise TypeError(f"{aug!r} is no augmentation: it has neither get_transform nor apply_image")


def _keep(owner: Any, params: dict[str, Any] | None) -> None:
    for name, value in (params or {}).items():
        if name != "self" and not name.startswith("_"):
            setattr(owner, name, value)


def _draw(get_transform: Callable, image: np.ndarray, sem_seg: np.ndarray | None) -> Transform:
    """Call with what the function asks for by the names of its arguments."""
    known = {name: value for name, value in (("image", image), ("sem_seg", sem_seg)) if value is not None}
    asked = inspect.signature(get_transform).parameters.values()
    if any(p.kind is p.VAR_POSITIONAL for p in asked):  # handed on to another one, which looks at the image
        return get_transform(image)
    unknown = [p.name for p in asked if p.default is p.empty and p.name not in known]
    if unknown:
        raise TypeError(f"get_transform asks for {', '.join(unknown)}; a sample has an image, and perhaps a sem_seg")
    return get_transform(**{p.name: known[p.name] for p in asked if p.name in known})


def as_array(inpt: torch.Tensor) -> np.ndarray:
    """Image [3,H,W] -> [H,W,3]; a Mask [...,H,W] as it is."""
    pixels = inpt.as_subclass(torch.Tensor)
    return np.ascontiguousarray((pixels.permute(1, 2, 0) if isinstance(inpt, tv_tensors.Image) else pixels).numpy())


def as_image(array: np.ndarray) -> tv_tensors.Image:
    """uint8 or float, [H,W,3] or grey [H,W], of the range 0..255 -> Image uint8 [3,H,W]."""
    if array.ndim == 2:
        array = np.repeat(array[:, :, None], 3, axis=2)
    if array.dtype != np.uint8:
        array = np.clip(np.rint(array), 0, 255).astype(np.uint8)
    return tv_tensors.Image(torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1))


def as_mask(array: np.ndarray) -> tv_tensors.Mask:
    """A map of ids [H,W] -> Mask [H,W]; one in colours [H,W,3] -> [3,H,W]."""
    planes = array.transpose(2, 0, 1) if array.ndim == 3 else array
    return tv_tensors.Mask(torch.from_numpy(np.ascontiguousarray(planes)))


def as_ids(sem_seg: np.ndarray) -> tv_tensors.Mask:
    """A map of class ids [H,W], often read as float, -> Mask of integers."""
    return as_mask(np.asarray(sem_seg).astype(np.int32))


def as_map(mask: tv_tensors.Mask) -> np.ndarray:
    """What `as_mask` was given, moved."""
    array = as_array(mask)
    return np.ascontiguousarray(array.transpose(1, 2, 0)) if array.ndim == 3 else array


def _frames(image: tv_tensors.Image) -> list[tv_tensors.Image]:
    """The pictures [3,H,W] of a clip [T,3,H,W], or the one there is."""
    return [tv_tensors.Image(frame) for frame in image] if image.ndim == 4 else [image]


def _moved(inpt: Any, drawn: Transform) -> Any:
    """A tv_tensor moved by the methods of a `Transform`."""
    if isinstance(inpt, tv_tensors.Image):
        frames = [as_image(drawn.apply_image(as_array(frame))) for frame in _frames(inpt)]
        return tv_tensors.Image(torch.stack(frames)) if inpt.ndim == 4 else frames[0]
    if isinstance(inpt, tv_tensors.Mask):
        array = as_array(inpt)
        layers = [drawn.apply_segmentation(layer) for layer in array.reshape(-1, *array.shape[-2:])]
        stacked = np.stack(layers).reshape(*array.shape[:-2], *layers[0].shape)
        return tv_tensors.Mask(torch.from_numpy(np.ascontiguousarray(stacked)))
    vertices = drawn.apply_coords(inpt.as_subclass(torch.Tensor).numpy().reshape(-1, 2))
    size = drawn.apply_segmentation(np.zeros(inpt.canvas_size, np.uint8)).shape[:2]
    return inpt.moved(torch.as_tensor(vertices), size)
