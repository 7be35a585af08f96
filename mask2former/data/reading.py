"""Image and mask files -> arrays. Every image of the package is read here."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from mask2former.utils.errors import UserError

# H, W: size in pixels after the EXIF orientation is applied

_ORIENTATION = 0x0112  # EXIF tag
_TRANSPOSED = (5, 6, 7, 8)  # orientations that swap height and width
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")  # how Pillow opens 16-bit grey files
_FORMATS = ("RGB", "BGR")


@contextmanager
def _opened(path: str | Path, what: str):
    """The opened file; whatever goes wrong while it is read becomes one UserError that names it."""
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError as error:
        raise UserError(f"{what} {path} does not exist. Put it there, or take it out of the data set.") from error
    # Pillow raises SyntaxError and ValueError, too, for broken files
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{what} {path} cannot be read ({error}). Replace the file or take it out of the data set."
        ) from error


def read_image(path: str | Path, format: str = "RGB") -> np.ndarray:
    """An image file as uint8 [H,W,3], upright, channels in the order of `format` ("RGB" or "BGR").

    Grey and palette files are spread to three channels, an alpha channel is dropped, and of 16-bit grey the upper
    8 bits are kept (as Pillow does for 16-bit colour).

    Raises:
        UserError: the file is missing, broken, or holds floating-point pixels.
    """
    check_format(format)
    with _opened(path, "Image") as image:
        image = ImageOps.exif_transpose(image)
        if image.mode == "F":
            raise UserError(f"Image {path} has floating-point pixels; expected 8 or 16 bits. Convert it.")
        if image.mode in _SIXTEEN_BIT:
            grey = np.clip(np.asarray(image, dtype=np.int64), 0, 65535) >> 8
            array = np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)
        else:
            array = np.array(image.convert("RGB"))  # a copy: Pillow's own memory is read-only
    return array if format == "RGB" else np.ascontiguousarray(array[:, :, ::-1])


def check_format(format: str) -> None:
    """Raise UserError for an INPUT.FORMAT other than "RGB" and "BGR"."""
    if format not in _FORMATS:
        raise UserError(f"INPUT.FORMAT is {format!r}; expected one of {', '.join(_FORMATS)}.")


def read_mask(path: str | Path) -> np.ndarray:
    """A mask file as int32 [H,W], upright: the class id of each pixel.

    Grey files of 1, 8 and 16 bits hold the ids as pixel values, palette files as palette positions, so ids above
    255 need 16-bit files.

    Raises:
        UserError: the file is missing, broken, or a colour image rather than a map of ids.
    """
    with _opened(path, "Mask") as image:
        image = ImageOps.exif_transpose(image)
        if image.mode not in ("1", "L", "P", *_SIXTEEN_BIT):
            raise UserError(
                f"Mask {path} has pixels of mode {image.mode!r}; expected one class id per pixel (grey of 8 or 16 "
                "bits, or a palette). Convert its colours to ids 0, 1, 2 ... first."
            )
        return np.asarray(image).astype(np.int32)


def read_panoptic(path: str | Path) -> np.ndarray:
    """A panoptic file as int32 [H,W], upright: the segment id of each pixel, R + 256 G + 65536 B; 0 is void.

    Grey files of 8 or 16 bits hold ids below 65536 as they are.

    Raises:
        UserError: the file is missing, broken, or has other pixels.
    """
    with _opened(path, "Panoptic map") as image:
        if image.getexif().get(_ORIENTATION, 1) != 1:  # asked here, since exif_transpose copies upright images
            image = ImageOps.exif_transpose(image)
        if image.mode in ("L", *_SIXTEEN_BIT):
            ids = np.asarray(image).astype(np.int32)
            if ids.min() < 0 or ids.max() >= 1 << 24:  # only files of 32 bits can hold those
                raise UserError(f"Panoptic map {path} has ids outside 0 to {(1 << 24) - 1}. Number the segments anew.")
            return ids
        if image.mode not in ("RGB", "RGBA"):
            raise UserError(
                f"Panoptic map {path} has pixels of mode {image.mode!r}; expected segment ids as R + 256 G + 65536 B. "
                "Export it as a PNG of 8-bit RGB."
            )
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        pixels = np.frombuffer(rgb.tobytes("raw", "RGBX"), "<i4")  # four bytes are one number, the last one unused
        return (pixels & 0xFFFFFF).astype(np.int32, copy=False).reshape(image.height, image.width)


def read_size(path: str | Path, what: str = "Image") -> tuple[int, int]:
    """(H, W) of an image or mask file from its header alone; `what` is its name in the error message."""
    with _opened(path, what) as image:
        # the base class' method: Pillow's own for PNG decodes the whole file in search of a trailing EXIF chunk
        transposed = Image.Image.getexif(image).get(_ORIENTATION) in _TRANSPOSED
        if transposed and image.format == "TIFF":  # Pillow versions differ in whose size they tell before loading
            image, transposed = ImageOps.exif_transpose(image), False
        width, height = image.size
    return (width, height) if transposed else (height, width)
