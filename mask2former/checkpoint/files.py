"""Weight files on disk: recognised by content, read without running anything in them."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from mask2former.checkpoint.folders import hub_hint, parts_of, weight_file
from mask2former.checkpoint.logbooks import logbook_globals
from mask2former.checkpoint.pickles import read_plain_pickle
from mask2former.checkpoint.zoo import ZOO_PREFIX, zoo_path
from mask2former.utils.errors import UserError
from mask2former.utils.io import local_path

_ZIP_START = b"PK\x03\x04"  # torch.save since 1.6
_LEGACY_TORCH_START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save before: its magic number, pickled
_PICKLE_START = b"\x80"  # any pickle protocol from 2 on
_JSON_START = b"{"
_SHOWN = 4  # bytes of a file that a message quotes: its kind shows, its contents, to which a link may lead, do not
# where programs keep weights in their files; Detectron-1's are in "blobs"
_PLACES = ("model", "state_dict", "blobs")
_MAX_SAFETENSORS_HEADER = 100_000_000  # bytes, the format's own limit


def load_checkpoint_file(path_or_url: str, key: str = "MODEL.WEIGHTS") -> dict:
    """Read a checkpoint of ours, a PyTorch file of weights, a detectron2 `.pkl`, safetensors, or such in parts.

    Args:
        path_or_url: a path, an http(s) address, a detectron2:// one, a short name of the zoo, zoo://..., or a folder
            that Hugging Face's `save_pretrained` wrote, or the index of its parts.
        key: the key or flag that named the file, for messages.

    Returns:
        A dict whose "model" maps names to CPU tensors, beside whatever else the file holds.

    Raises:
        UserError: missing, of another kind, cut off, with code inside, or without weights.
    """
    if path_or_url.startswith(ZOO_PREFIX):
        path = zoo_path(path_or_url, key)
    elif "://" not in path_or_url and (folder := Path(path_or_url).expanduser()).is_dir():
        path = str(weight_file(folder, key))
    else:
        try:
            path = local_path(path_or_url, key)
        except UserError as error:
            raise UserError(f"{error}{hub_hint(path_or_url)}") from error
    return _with_model(_read(path, key), path, key)


def _read(path: str, key: str) -> Any:
    """What a file holds, or all files that it names."""
    with open(path, "rb") as file:
        is_index = file.read(len(_JSON_START)) == _JSON_START
    return _read_parts(Path(path), key) if is_index else _read_one(path, key)


def _read_one(path: str, key: str) -> Any:
    """What a file holds, its kind told by how it begins; no index, which could name itself."""
    with open(path, "rb") as file:
        start = file.read(len(_LEGACY_TORCH_START))
        file.seek(0)
        if start.startswith(_ZIP_START) or start == _LEGACY_TORCH_START:
            return _read_torch(path, key)
        if _is_safetensors(start):
            return _read_safetensors(path, key)
        if start.startswith(_PICKLE_START):
            return read_plain_pickle(file, path, key)
    raise UserError(
        f"{path} is no weight file: it begins with {start[:_SHOWN]!r} ({Path(path).stat().st_size} bytes). Expected "
        f"what torch.save writes (.pth, .pt, .bin), safetensors, or detectron2's pickle (.pkl). Correct {key}."
    )


def _is_safetensors(start: bytes) -> bool:
    """Its header is JSON, behind the header's length in 8 bytes."""
    return start[8:9] == _JSON_START and int.from_bytes(start[:8], "little") <= _MAX_SAFETENSORS_HEADER


def _read_safetensors(path: str, key: str) -> dict:
    try:
        return safetensors.torch.load_file(path)
    except Exception as error:  # of several kinds for headers, sizes and types
        raise _damaged(path, key, error) from error


def _read_parts(index: Path, key: str) -> dict:
    """The tensors of all files that an index names."""
    weights: dict[str, Any] = {}
    for part, names in parts_of(index, key).items():
        contents = _with_model(_read_one(str(part), key), str(part), key)["model"]
        missing = [name for name in names if name not in contents]
        if missing:
            raise UserError(
                f"{part} lacks {len(missing)} of the {len(names)} tensors that {index.name} says it has, such as "
                f"{missing[0]}. Copy or download the whole folder again, or correct {key}."
            )
        weights.update(contents)
    return weights


def _read_torch(path: str, key: str) -> Any:
    _check_zip(path, key)
    try:
        with torch.serialization.safe_globals(logbook_globals()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported" in str(error) or "weights_only" in str(error).lower():
            raise UserError(
                f"{path} was refused: it holds more than tensors and plain values, and loading that could run code "
                f"({_first_sentence(error)}). If you trust the file, convert it where it was made: "
                "torch.save({'model': model.state_dict()}, 'weights.pth')."
            ) from None
        raise _damaged(path, key, error) from error
    except Exception as error:  # zip, pickle and storage readers each have their own
        raise _damaged(path, key, error) from error


def _check_zip(path: str, key: str) -> None:
    """Refuse other archives than those that torch.save writes; what cannot be listed is left to torch's reader."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # cut off, or written before torch used archives
    if "constants.pkl" in names:
        raise UserError(
            f"{path} is a TorchScript program, and loading it could run code: expected a file of weights. If you trust "
            "it, convert it where it was made: torch.save({'model': torch.jit.load(path).state_dict()}, 'weights.pth')."
        )
    if "data.pkl" not in names:
        raise UserError(f"{path} is a zip, but no torch file: it has no data.pkl. Unpack it, or correct {key}.")


def _damaged(path: str, key: str, error: Exception) -> UserError:
    return UserError(
        f"{path} could not be read ({type(error).__name__}: {_first_sentence(error)}). It is probably cut off or "
        f"damaged; copy or download it again, or point {key} elsewhere."
    )


def _first_sentence(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if "GLOBAL" in line or "global" in line]  # torch names what it refused in there
    return (named or lines or [""])[0].split(". ")[0].rstrip(".")[:300]


def _with_model(contents: Any, path: str, key: str) -> dict:
    """The file's dict with its weights as tensors under "model"."""
    if isinstance(contents, dict) and "model" not in contents:
        place = next((one for one in _PLACES if one in contents), None)
        contents = {"model": contents} if place is None else {**contents, "model": contents[place]}
    weights = contents["model"] if isinstance(contents, dict) else None
    tensors = {}
    if isinstance(weights, dict):
        tensors = {str(name): _tensor(value) for name, value in weights.items() if _is_array(value)}
    if not tensors:
        raise UserError(
            f"{path} holds no weights: expected a dict of named tensors, at the top or under one of "
            f"{', '.join(map(repr, _PLACES))}. Correct {key}."
        )
    return {**contents, "model": tensors}


def _is_array(value: Any) -> bool:
    return isinstance(value, torch.Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind in "biuf")


def _tensor(value: torch.Tensor | np.ndarray) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value
    # torch wants native byte order and writable memory
    return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("=")))
