"""Folders and indices of Hugging Face's libraries, which may cut a model's weights into several files."""

from __future__ import annotations

import json
from pathlib import Path

from mask2former.utils.errors import UserError

# what such a folder may have, the first is taken: safetensors before pickles, one file before parts
WHOLE = "model.safetensors"
INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_NAMES = (WHOLE, INDICES[0], "pytorch_model.bin", INDICES[1])


def weight_file(folder: Path, key: str) -> Path:
    """The file with weights, or the index of such files, in a folder that `save_pretrained` wrote.

    Raises:
        UserError: there is none.
    """
    for name in _NAMES:
        if (folder / name).is_file():
            return folder / name
    raise UserError(
        f"{folder} is a folder without weights: expected one of {', '.join(_NAMES)} in it, as Hugging Face's libraries "
        f"write them, or the path of a file. Correct {key}."
    )


def parts_of(index: Path, key: str) -> dict[Path, list[str]]:
    """The files that an index names -> the tensors that each should hold.

    Raises:
        UserError: it is no such index, or files are missing.
    """
    try:
        weight_map = json.loads(index.read_text())["weight_map"]
        parts: dict[Path, list[str]] = {}
        for tensor, name in weight_map.items():
            if name.endswith(".json"):
                raise ValueError(f"{name} is an index again")
            parts.setdefault(index.parent / Path(name).name, []).append(tensor)  # beside the index, nowhere else
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{index} is no index of weights ({type(error).__name__}: {error}): expected JSON with a 'weight_map' from "
            f"tensors to files. Correct {key}."
        ) from error
    missing = [path.name for path in parts if not path.is_file()]
    if missing or not parts:
        raise UserError(
            f"{index} names {len(parts)} files, of which these are not beside it: {', '.join(missing) or 'none'}. "
            f"Copy or download the whole folder again, or correct {key}."
        )
    return parts
