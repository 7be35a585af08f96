"""detectron2's `.pkl` files: arrays or tensors in a pickle, read without giving the file a way to run anything.

NumPy arrays are detectron2's own form. Tensors are what the published scripts write that turn weights of classifiers
into such files (convert-pretrained-swin-model-to-d2.py and its like for DiNAT): they pickle what torch.load gave.
"""

from __future__ import annotations

import collections
import io
import pickle
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from mask2former.utils.errors import UserError

try:
    from numpy._core import multiarray, numeric  # NumPy 2
except ImportError:
    from numpy.core import multiarray, numeric


def _encode(text: str, encoding: str) -> bytes:
    """Stands for `_codecs.encode`, which old pickle protocols use to spell bytes, always in Latin-1."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes spelled in {encoding!r}")
    return text.encode("latin1")


class _Refused(pickle.UnpicklingError):
    """The pickle asks for something that is not in `ALLOWED_GLOBALS`, directly or in bytes within."""


def _values(data: bytes) -> torch.Tensor:
    """Stands for `torch.storage._load_from_bytes`, whose bytes are a pickle again: a storage as a tensor [N]."""
    try:
        storage = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        storage = None
    if not isinstance(storage, torch.TypedStorage):
        raise _Refused("torch.storage._load_from_bytes of something else than a tensor's values")
    return torch.empty(0, dtype=storage.dtype).set_(storage._untyped_storage)  # its public name warns that it ages


def _tensor(values: torch.Tensor, offset: int, size: tuple, stride: tuple, *_: Any) -> torch.Tensor:
    """Stands for `torch._utils._rebuild_tensor_v2`, without gradients and hooks; refuses to look beyond the values."""
    return values.as_strided(size, stride, offset)


def _parameter(data: torch.Tensor, *_: Any) -> torch.Tensor:
    """Stands for `torch._utils._rebuild_parameter`."""
    return data


def numpy_globals() -> dict[tuple[str, str], Any]:
    """What NumPy writes for arrays and scalars, under its old and its new module names."""
    found = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype}
    for core in ("numpy.core", "numpy._core"):
        found[f"{core}.multiarray", "_reconstruct"] = multiarray._reconstruct
        found[f"{core}.multiarray", "scalar"] = multiarray.scalar
        found[f"{core}.numeric", "_frombuffer"] = numeric._frombuffer
    return found


ALLOWED_GLOBALS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("_codecs", "encode"): _encode,
    ("torch.storage", "_load_from_bytes"): _values,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    **numpy_globals(),
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return ALLOWED_GLOBALS[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None


def read_plain_pickle(file: BinaryIO, path: str | Path, key: str = "MODEL.WEIGHTS") -> Any:
    """Read arrays, tensors, dicts, lists, strings and numbers from an open pickle; anything else is refused unread.

    Args:
        file: opened in binary mode, at the pickle's start. Python 2 strings are taken as Latin-1.
        path: the file's name, for messages.
        key: the key or flag that named it, for messages.

    Raises:
        UserError: the pickle names another class or function (code), or is cut off or damaged.
    """
    try:
        return _PlainUnpickler(file, encoding="latin1").load()
    except _Refused as error:
        raise UserError(
            f"{path} was refused: its pickle asks for '{error}', and loading that could run code. Expected a dict of "
            "NumPy arrays or tensors and plain values, as detectron2's .pkl files are. If you trust the file, convert "
            "it where it was made: torch.save({'model': state_dict}, 'weights.pth')."
        ) from None
    except Exception as error:  # pickle lets many kinds through for damaged input
        raise UserError(
            f"{path} could not be read as a pickle ({type(error).__name__}: {error}). It is probably cut off or "
            f"damaged; copy or download it again, or point {key} elsewhere."
        ) from error
