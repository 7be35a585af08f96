"""Checkpoints in the output folder: `model_0000999.pth`, `model_final.pth`, `last_checkpoint`."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from mask2former.checkpoint.files import load_checkpoint_file
from mask2former.checkpoint.writing import write_whole
from mask2former.utils.errors import UserError

logger = logging.getLogger(__name__)

LAST = "last_checkpoint"  # a text file with the name of the newest checkpoint, as detectron2 keeps it


class Checkpointer:
    """Writes checkpoints whole or not at all, and finds the newest one again.

    A checkpoint is a dict of tensors and plain values ("model", "optimizer", ..., see `engine/run.py`), so that
    `torch.load(weights_only=True)` reads it. One process writes; the others must not call `save`.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def save(self, name: str, contents: dict) -> Path:
        """Write `<name>.pth` and make it the newest.

        Raises:
            UserError: the folder cannot be written (full disk, permissions); an older file of that name is untouched.
        """
        path = self.folder / f"{name}.pth"
        remedy = "Make room or set OUTPUT_DIR to another folder; --resume goes on from the last checkpoint."
        write_whole(path, lambda temporary: torch.save(contents, temporary), remedy)
        write_whole(self.folder / LAST, lambda temporary: temporary.write_text(path.name), remedy)
        logger.info("saved %s", path)
        return path

    def last(self) -> Path | None:
        """The newest checkpoint of the folder; None when there is none yet.

        Raises:
            UserError: `last_checkpoint` names a file that is not there.
        """
        marker = self.folder / LAST
        if not marker.is_file():
            return None
        path = self.folder / marker.read_text().strip()
        if not path.is_file():
            raise UserError(
                f"{marker} names {path.name}, which is not in {self.folder}. Put it back, write the name of another "
                f"checkpoint into {marker}, or start anew with another OUTPUT_DIR."
            )
        return path

    def load_last(self) -> dict | None:
        """The contents of the newest checkpoint, on the CPU; None when there is none yet."""
        path = self.last()
        return None if path is None else load_checkpoint_file(str(path), "--resume")
