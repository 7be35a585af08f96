"""What an inspection can find."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

# kind -> (whether training or evaluation goes wrong with it, what to do about it)
KINDS: dict[str, tuple[bool, str]] = {
    "data set": (True, "correct the file or the registration that the message names"),
    "record": (True, "correct the function registered for the data set, or the entry in its JSON file"),
    "image": (True, "replace the file, or take the image out of the data set"),
    "map": (True, "replace the semantic or panoptic map"),
    "size": (True, "export map, mask or JSON entry again at the size of the upright image"),
    "class id": (True, "correct the map or annotation, the class list, or the ignore value"),
    "duplicate id": (True, "give each image, annotation and segment an id of its own"),
    "polygon": (True, "draw the polygon again, or take it out"),
    "RLE": (True, "export the mask again"),
    "track": (True, "export the track again: one class, and an entry for each frame of its video"),
    "unlisted segment": (True, "list the id under segments_info, or set its pixels to 0"),
    "shared image": (True, "take the image out of one of the data sets: a test on trained images says little"),
    "reader's warning": (False, "see the message"),
    "no mask": (False, "draw its mask: annotations without one are left out"),
    "repeated image": (False, "keep one of the copies"),
    "segment area": (False, "export JSON and PNG together; a segment may lie below another one"),
    "no labels": (False, "label the image, or take it out"),
    "empty annotation": (False, "take it out: it has no pixel inside the image"),
    "tiny annotation": (False, "check whether it is meant: it is smaller than one cell of the model's masks"),
    "many targets": (False, "raise MODEL.MASK_FORMER.NUM_OBJECT_QUERIES: what exceeds it cannot be learned"),
    "unused class": (False, "add examples, or take the class out of the list"),
}


class Finding(NamedTuple):
    """One thing that is wrong: its kind (one of `KINDS`), the file or entry, and what was found there."""

    kind: str
    place: str
    text: str

    @property
    def is_error(self) -> bool:
        return KINDS[self.kind][0]


@dataclass
class Tally:
    """What was seen of one image in one kind of ground truth.

    findings  what is wrong
    classes   class number -> (pixels, objects)
    targets   masks that training would ask the model for
    """

    findings: list[Finding] = field(default_factory=list)
    classes: dict[int, tuple[int, int]] = field(default_factory=dict)
    targets: int = 0

    def found(self, kind: str, place: str, text: str) -> None:
        self.findings.append(Finding(kind, place, text))

    def count(self, k: int, pixels: int) -> None:
        """One object of class `k`."""
        known = self.classes.get(k, (0, 0))
        self.classes[k] = (known[0] + pixels, known[1] + 1)
