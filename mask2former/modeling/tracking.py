"""Which object of one window of frames is which of the next: the same linker for clips and for single images.

Assignment over mask IoU on the frames that two windows share, likeness of classes, and of the queries' mask embeddings
(linking by embeddings: Huang et al., MinVIS, NeurIPS 2022).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

# N objects of a window, M tracks known before, W frames of a window, O shared frames, K classes, C channels

MIN_IOU = 0.1  # an object that both windows see lies in the same place in both
SURE_IOU = 0.5  # at which an object is the same though its class seems to have changed
MIN_LIKENESS = 0.5  # of classes elsewhere; of classes and of embeddings, where masks cannot tell
UNSEEN_PLACE = 0.5  # what stands for the IoU there
PATIENCE = 30  # frames, about a second, for which an object out of sight is remembered


@dataclass
class WindowObjects:
    """The objects of one window; for an image model, of one frame (W = 1).

    masks        bool [N,W,h,w], of any one resolution
    probability  [N,K+1], "no object" last
    embedding    [N,C]; None: the model has none to compare
    """

    masks: Tensor
    probability: Tensor
    embedding: Tensor | None = None


@dataclass
class _Known:
    """A track as it was in the last window that had it; ``unseen`` counts the frames since."""

    id: int
    masks: Tensor
    probability: Tensor
    embedding: Tensor | None
    unseen: int = 0


class TrackLinker:
    """Gives the objects of one window after the other the numbers of their tracks, from 1.

    It remembers the window before and the tracks that ended less than `PATIENCE` frames ago, no more.
    """

    def __init__(self) -> None:
        self._known: list[_Known] = []
        self._last_id = 0

    def link(self, objects: WindowObjects, overlap: int) -> list[int]:
        """The id of each object; ``overlap`` leading frames are the last ones of the window before, which may be 0.

        Without shared frames the masks of neighbouring frames are compared.
        """
        owners = self._owners(objects, overlap)
        ids = [self.new_id() if owner is None else owner.id for owner in owners]
        self._remember(objects, ids, objects.masks.shape[1] - overlap)
        return ids

    def new_id(self) -> int:
        """An id that no track has."""
        self._last_id += 1
        return self._last_id

    def knows(self, track: int) -> bool:
        """Whether an object may get this id again."""
        return any(known.id == track for known in self._known)

    def _remember(self, objects: WindowObjects, ids: list[int], new_frames: int) -> None:
        here = set(ids)
        unseen = [known for known in self._known if known.id not in here]
        for known in unseen:
            known.unseen += new_frames
        self._known = [known for known in unseen if known.unseen <= PATIENCE]
        embeddings = [None] * len(ids) if objects.embedding is None else objects.embedding
        self._known += [_Known(*row) for row in zip(ids, objects.masks, objects.probability, embeddings)]

    def _owners(self, objects: WindowObjects, overlap: int) -> list[_Known | None]:
        """The known track of each object, None for a new one."""
        owners: list[_Known | None] = [None] * len(objects.masks)
        if not self._known or not owners:
            return owners
        # pairs that are worth nothing stay apart, so that a sure link is not given up for two doubtful ones
        worth = self._worth(objects, overlap).numpy()
        for row, column in zip(*linear_sum_assignment(worth, maximize=True)):
            if worth[row, column] > 0:
                owners[row] = self._known[column]
        return owners

    def _worth(self, objects: WindowObjects, overlap: int) -> Tensor:
        """What it speaks for each object to be each known track, [N,M] from 0, which rules it out, to 3; on the CPU."""
        place, both_visible = self._overlaps(objects.masks, overlap)
        known = torch.stack([k.probability for k in self._known])
        # "no object" counts, so that a weak double of an object resembles weak doubles, not the object
        classes = torch.minimum(objects.probability[:, None], known).sum(2).cpu()
        looks = torch.zeros_like(classes)
        if objects.embedding is not None:
            embeddings = torch.stack([k.embedding for k in self._known])
            looks = F.cosine_similarity(objects.embedding[:, None], embeddings, dim=2).cpu().clamp(min=0)
            alike = ~both_visible & (classes >= MIN_LIKENESS) & (looks >= MIN_LIKENESS)
            place = torch.where(alike, place.clamp(min=UNSEEN_PLACE), place)
        in_sight = torch.tensor([not k.unseen for k in self._known])
        possible = (place >= MIN_IOU) & ((classes >= MIN_LIKENESS) | (in_sight & (place >= SURE_IOU)))
        return torch.where(possible, place * (1 + classes + looks), 0)

    def _overlaps(self, masks: Tensor, overlap: int) -> tuple[Tensor, Tensor]:
        """IoU [N,M], and bool [N,M] where both masks have pixels on the compared frames."""
        iou = torch.zeros(len(masks), len(self._known), device=masks.device)
        visible = torch.zeros_like(iou, dtype=torch.bool)
        for column, known in enumerate(self._known):
            # of a track that the window before did not have, its last frame is the nearest there is
            frames = max(1, overlap) if not known.unseen else 1
            here, there = masks[:, :frames].flatten(1), known.masks[-frames:].flatten()
            shared = (here & there).sum(1)
            iou[:, column] = shared / (here | there).sum(1).clamp(min=1)
            visible[:, column] = here.any(1) & there.any() & (known.unseen == 0)
        return iou.cpu(), visible.cpu()
