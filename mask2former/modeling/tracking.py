"""Which object of one window of frames is which of the next: the same linker for clips and for single images.

Assignment over mask IoU on the frames that two windows share, likeness of classes, and of the queries' mask embeddings
(linking by embeddings: Huang et al., MinVIS, NeurIPS 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

# N objects of a window, M tracks known before, W frames of a window, O shared frames, K classes, C channels, P pixels

MIN_IOU = 0.1  # an object that both windows see lies in the same place in both
SURE_IOU = 0.5  # at which an object is the same though its class seems to have changed
MIN_LIKENESS = 0.5  # of classes elsewhere; of classes and of embeddings, where masks cannot tell
UNSEEN_PLACE = 0.5  # what stands for the IoU there
PATIENCE = 30  # frames, about a second, for which an object out of sight is remembered
_AT_ONCE = 64  # tracks that objects are compared with together: a bound for memory


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

    def __len__(self) -> int:
        return len(self.masks)

    def rows(self, index: slice | list[int]) -> WindowObjects:
        """Some of the objects."""
        embedding = None if self.embedding is None else self.embedding[index]
        return WindowObjects(self.masks[index], self.probability[index], embedding)

    def last_frame(self) -> WindowObjects:
        """The objects as they are in the window's last frame."""
        return WindowObjects(self.masks[:, -1:], self.probability, self.embedding)

    @staticmethod
    def cat(parts: Sequence[WindowObjects]) -> WindowObjects:
        """All objects of ``parts``, windows of one length."""
        embeddings = [part.embedding for part in parts]
        return WindowObjects(
            torch.cat([part.masks for part in parts]),
            torch.cat([part.probability for part in parts]),
            None if embeddings[0] is None else torch.cat(embeddings),
        )


@dataclass
class _Known:
    """M tracks as they were in the last window that had them; ``unseen`` counts the frames since."""

    ids: list[int]
    unseen: list[int]
    objects: WindowObjects


class TrackLinker:
    """Gives the objects of one window after the other the numbers of their tracks, from 1.

    It remembers the window before and the tracks that ended less than `PATIENCE` frames ago, no more.
    """

    def __init__(self) -> None:
        # once there was a window: the tracks that it did not have, in their last frame, and those that it had
        self._known: list[_Known] = []
        self._known_ids: frozenset[int] = frozenset()
        self._last_id = 0

    def link(self, objects: WindowObjects, overlap: int) -> list[int]:
        """The id of each object; ``overlap`` leading frames are the last ones of the window before, which may be 0.

        Without shared frames the masks of neighbouring frames are compared.
        """
        owners = self._owners(objects, overlap)
        ids = [self.new_id() if owner is None else owner for owner in owners]
        self._remember(objects, ids, objects.masks.shape[1] - overlap)
        return ids

    def new_id(self) -> int:
        """An id that no track has."""
        self._last_id += 1
        return self._last_id

    def knows(self, track: int) -> bool:
        """Whether an object may get this id again."""
        return track in self._known_ids

    def _remember(self, objects: WindowObjects, ids: list[int], new_frames: int) -> None:
        here, lost, unseen, parts = set(ids), [], [], [objects.last_frame().rows([])]
        for known in self._known:
            ages = [age + new_frames for age in known.unseen]
            rows = [i for i, age in enumerate(ages) if age <= PATIENCE and known.ids[i] not in here]
            lost += [known.ids[i] for i in rows]
            unseen += [ages[i] for i in rows]
            parts.append(known.objects.last_frame().rows(rows))
        self._known = [_Known(lost, unseen, WindowObjects.cat(parts)), _Known(ids, [0] * len(ids), objects)]
        self._known_ids = here.union(lost)

    def _owners(self, objects: WindowObjects, overlap: int) -> list[int | None]:
        """The id of the known track that each object is, None for a new one."""
        owners: list[int | None] = [None] * len(objects)
        if not self._known_ids or not owners:
            return owners
        lost, before = self._known
        # of a track that the window before did not have, its last frame is the nearest there is
        of_lost = _worth(objects, lost.objects, frames=1, in_sight=False)
        of_before = _worth(objects, before.objects, frames=max(1, overlap), in_sight=True)
        # a model that diverged links nothing
        worth, ids = torch.cat([of_lost, of_before], 1).nan_to_num(nan=0).numpy(), lost.ids + before.ids
        # pairs that are worth nothing stay apart, so that a sure link is not given up for two doubtful ones
        for row, column in zip(*linear_sum_assignment(worth, maximize=True)):
            if worth[row, column] > 0:
                owners[row] = ids[column]
        return owners


def _worth(objects: WindowObjects, known: WindowObjects, frames: int, in_sight: bool) -> Tensor:
    """What it speaks for each object to be each known track, [N,M] from 0, which rules it out, to 3; on the CPU.

    Args:
        objects: of this window, compared in their first frames.
        known: tracks, compared in their last frames.
        frames: how many of them.
        in_sight: whether the window before had the tracks.
    """
    parts = [known.rows(slice(start, start + _AT_ONCE)) for start in range(0, len(known), _AT_ONCE)]
    found = [_worth_at_once(objects, part, frames, in_sight).cpu() for part in parts]
    return torch.cat([torch.zeros(len(objects), 0), *found], 1)


def _worth_at_once(objects: WindowObjects, known: WindowObjects, frames: int, in_sight: bool) -> Tensor:
    place, both_visible = overlaps(objects.masks[:, :frames], known.masks[:, -frames:])
    # "no object" counts, so that a weak double of an object resembles weak doubles, not the object
    classes = torch.minimum(objects.probability[:, None], known.probability).sum(2).to(place.device)
    looks = torch.zeros_like(classes)
    if objects.embedding is not None:
        looks = (F.normalize(objects.embedding) @ F.normalize(known.embedding).T).clamp(min=0)
        cannot_tell = ~both_visible if in_sight else torch.ones_like(both_visible)
        alike = cannot_tell & (classes >= MIN_LIKENESS) & (looks >= MIN_LIKENESS)
        place = torch.where(alike, place.clamp(min=UNSEEN_PLACE), place)
    possible = (place >= MIN_IOU) & ((classes >= MIN_LIKENESS) | (in_sight & (place >= SURE_IOU)))
    return torch.where(possible, place * (1 + classes + looks), 0)


def overlaps(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """IoU [N,M] of masks bool [N,O,h,w] and [M,O,h,w], and bool [N,M] where both have pixels."""
    shared = torch.zeros(len(first), len(second), dtype=torch.int64, device=first.device)
    with torch.autocast(first.device.type, enabled=False):  # half precision cannot count pixels
        for t in range(first.shape[1]):
            pixels, others = (masks[:, t].flatten(1).float() for masks in (first, second))  # [N,P], [M,P]
            shared += (pixels @ others.T).long()  # float32 counts up to 2 ** 24 = 4096 * 4096 pixels exactly
    areas, other_areas = (masks.flatten(1).sum(1) for masks in (first, second))
    iou = shared / (areas[:, None] + other_areas - shared).clamp(min=1)
    return iou, (areas > 0)[:, None] & (other_areas > 0)
