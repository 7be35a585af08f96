"""Files that are whole when they appear under their name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from mask2former.utils.errors import UserError


def write_whole(path: Path, write: Callable[[Path], object], remedy: str) -> None:
    """Write beside `path`, then rename: a reader sees the old file or the new one, never a part.

    Args:
        write: writes to the path that it is given.
        remedy: the end of the message: what to do when there is no room.

    Raises:
        UserError: the folder cannot be written (full disk, permissions); an older file of that name is untouched.
    """
    temporary = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())  # the bytes must reach the disk before the name does
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch's zip writer raises RuntimeError on a full disk
        temporary.unlink(missing_ok=True)
        raise UserError(f"{path} could not be written ({error}). {remedy}") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
