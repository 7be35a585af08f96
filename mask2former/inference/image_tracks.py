"""Models of images on video: each frame on its own, and objects that keep their ids from frame to frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from mask2former.modeling.track_book import TrackBook
from mask2former.modeling.tracking import TrackLinker, WindowObjects
from mask2former.structures import TrackedObject, rle_encode

# N objects of a frame, K classes, H W frame size

_LINKED_EDGE = 256  # pixels of a frame's longer side at which masks are compared
_AT_ONCE = 16  # masks that are made small at a time


class FrameLinker:
    """Numbers the results of an image model, frame by frame. Stuff is one track per class.

    num_classes  K
    min_score    instances below it are left out
    """

    def __init__(self, num_classes: int, min_score: float):
        self.num_classes, self.min_score = num_classes, min_score

    def stream(self, results: Iterable[dict], book: TrackBook) -> Iterator[list[TrackedObject]]:
        """The objects of each frame, from the panoptic result where there is one, else instances, else classes."""
        linker, stuff = TrackLinker(), {}
        for result in results:
            masks, scores, categories, isthing = self._objects(result)
            probability = torch.zeros(len(scores), self.num_classes + 1)
            probability[torch.arange(len(scores)), categories] = scores
            probability[:, -1] = 1 - scores
            things = linker.link(WindowObjects(_small(masks[isthing]), probability[isthing]), overlap=0)
            numbers, ids = iter(things), []
            for category, thing in zip(categories.tolist(), isthing.tolist()):
                if not thing and category not in stuff:
                    stuff[category] = linker.new_id()
                ids.append(next(numbers) if thing else stuff[category])
            book.score(ids, probability[:, :-1], 1)
            of_stuff = set(stuff.values())
            found = book.add_frame(ids, [rle_encode(mask) for mask in masks.cpu()])
            yield [replace(one, isthing=one.id not in of_stuff) for one in found]
            book.close(lambda track, kept=of_stuff: track in kept or linker.knows(track))

    def _objects(self, result: dict) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Masks bool [N,H,W], and on the CPU scores [N], classes [N] and whether they are things [N]."""
        if "panoptic_seg" in result:
            segments, info = result["panoptic_seg"]
            numbers = torch.tensor([segment["id"] for segment in info], device=segments.device, dtype=segments.dtype)
            categories = torch.tensor([segment["category_id"] for segment in info], dtype=torch.int64)
            isthing = torch.tensor([bool(segment["isthing"]) for segment in info], dtype=torch.bool)
            return segments == numbers[:, None, None], torch.ones(len(info)), categories, isthing
        if "instances" in result:
            found = result["instances"]
            found = found[(found.scores >= self.min_score) & found.pred_masks.flatten(1).any(1)]
            scores, categories = found.scores.float().cpu(), found.pred_classes.cpu()
            return found.pred_masks, scores, categories, torch.ones(len(found), dtype=torch.bool)
        classes = result["sem_seg"].argmax(0)
        present = classes.unique()
        masks = classes == present[:, None, None]
        return masks, torch.ones(len(present)), present.cpu(), torch.zeros(len(present), dtype=torch.bool)


def _small(masks: Tensor) -> Tensor:
    """[N,H,W] -> [N,1,h,w]; a pixel is inside where one of those that it stands for is, so that nothing vanishes."""
    step = -(-max(masks.shape[-2:]) // _LINKED_EDGE)
    if not len(masks):
        return masks[:, None]
    parts = [F.max_pool2d(part[:, None].float(), step, ceil_mode=True) > 0 for part in masks.split(_AT_ONCE)]
    return torch.cat(parts)
