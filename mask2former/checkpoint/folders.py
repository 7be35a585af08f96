"""Folders and indices of Hugging Face's libraries, which may cut a model's weights into several files."""

from __future__ import annotations

import json
import re
from pathlib import Path

from mask2former.checkpoint.report import some_of
from mask2former.utils.errors import UserError

# what such a folder may have, the first is taken: safetensors before pickles, one file before parts
WHOLE = "model.safetensors"
INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_NAMES = (WHOLE, INDICES[0], "pytorch_model.bin", INDICES[1])
_HUB_NAME = re.compile(r"\w[\w.-]*/[\w.-]+")
_FILE_ENDS = (".pth", ".pt", ".bin", ".safetensors", ".pkl", ".json")


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
            parts.setdefault(index.parent / Path(name).name, []).append(tensor)  # beside the index, nowhere else
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{index} is no index of weights ({type(error).__name__}: {error}): expected JSON with a 'weight_map' from "
            f"tensors to files. Correct {key}."
        ) from error
    if not parts:
        raise UserError(f"{index} names no files: its 'weight_map' is empty. Correct {key}.")
    missing = [_quoted(path.name) for path in parts if not path.is_file()]
    if missing:
        raise UserError(
            f"{index} names {len(parts)} files, of which these are not beside it: {some_of(missing)}. Copy or download "
            f"the whole folder again, or correct {key}."
        )
    return parts


def hub_hint(name: str) -> str:
    """The tail of an error message for a path that is not there: what to do if it is a name of Hugging Face's hub."""
    owner = Path(name).parent
    if not _HUB_NAME.fullmatch(name) or name.endswith(_FILE_ENDS) or owner.is_dir():
        return ""
    return (
        f" If it is a model of Hugging Face's hub: `huggingface-cli download {name} --local-dir FOLDER`, and give "
        "FOLDER instead."
    )


def _quoted(name: str) -> str:
    """Names that could be taken for something else in a list, or spoil a terminal, in quotes."""
    return name if re.fullmatch(r"\w[\w.+-]*", name) else repr(name)
