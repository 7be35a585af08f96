"""Videos of the shapes of make_shapes.py: they move, turn, cover each other, come into the picture and leave it.

Annotated in YouTube-VIS's form, with the true track of every thing:

    train/JPEGImages/000/00000.jpg     the frames, 3 to 4 wide and high; valid/ likewise
    train.json, valid.json             videos, tracks (one RLE per frame, null where nothing is to be seen), categories

Video i of a split does not depend on how many others there are.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from make_shapes import CATEGORIES, SPLITS, THINGS, _background, _box, _finish, _lay, _Thing, appearing
from PIL import Image
from pycocotools import mask as coco_mask

FRAMES = (20, 30)  # fewest and most frames of a video
MOVING = (2, 5)  # fewest and most things in it
SEEN = 16  # pixels of a thing that must show for it to be in a frame

# T frames; H, W: size of a frame in pixels; S = W: size of the canvas, of which the middle rows are shown


class _Mover:
    """A thing with its path: where it is, how large and how turned at each frame.

    Args:
        rng: of the video.
        frames: T.
        size: S.
        height: H.
    """

    def __init__(self, rng: np.random.Generator, frames: int, size: int, height: int):
        self.kind, self.paint_seed = int(rng.integers(THINGS)), int(rng.integers(2**31))
        margin, t = (size - height) / 2, np.linspace(-1, 1, frames)[:, None]
        # it passes this place at some time in the middle of the video; fast ones start or end outside the picture
        place = rng.uniform((margin + 0.15 * height, 0.15 * size), (margin + 0.85 * height, 0.85 * size))
        heading, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.8) * size
        velocity = distance * np.array([np.sin(heading), np.cos(heading)])
        sway = rng.uniform(-0.08, 0.08, 2) * size * np.sin(np.pi * (rng.uniform(0.5, 1.5) * t + rng.uniform(0, 2)))
        self.centers = place + velocity * (t - rng.uniform(-0.5, 0.5)) + sway  # [T,2] (y, x)
        growth = rng.uniform(-0.2, 0.2)
        self.radii = rng.uniform(0.09, 0.18) * size * (1 + growth * t[:, 0])  # [T]
        self.turns = rng.uniform(0, 2 * np.pi) + rng.uniform(-1.5, 1.5) * t[:, 0]  # [T]

    def at(self, t: int, size: int, offset: int) -> _Thing:
        return _Thing(self.kind, self.radii[t], self.turns[t], self.centers[t], size, offset)


def draw_video(seed: int, split: int, index: int, size: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """One video of the world, from its own random generator.

    Returns:
        frames uint8 [T,H,W,3]; objects uint8 [T,H,W], 0 for the ground and 1, 2 ... for the visible part of each
        thing; the kinds of the things, places in CATEGORIES.
    """
    rng = np.random.default_rng([seed, split, index, 1])  # unrelated to the pictures of make_shapes.py
    height, offset = size * 3 // 4, max(1, size // 50)
    top = (size - height) // 2
    y, x = (np.mgrid[:size, :size].astype(np.float32) + 0.5) / size
    ground, _ = _background(rng, size, x, y)
    count = int(rng.integers(FRAMES[0], FRAMES[1] + 1))
    movers = [_Mover(rng, count, size, height) for _ in range(rng.integers(MOVING[0], MOVING[1] + 1))]
    frames, objects = [], []
    for t in range(count):
        colors, numbers = ground.copy(), np.zeros((size, size), np.uint8)
        for number, mover in enumerate(movers, start=1):  # from back to front
            thing = mover.at(t, size, offset)
            if thing.inside.size:
                _lay(colors, thing, np.random.default_rng(mover.paint_seed), offset)
                numbers[thing.window][thing.inside] = number
        frames.append(_finish(rng, colors)[top : top + height])
        objects.append(numbers[top : top + height])
    return np.stack(frames), np.stack(objects), [mover.kind for mover in movers]


def _tracks(video: dict, first_id: int, objects: np.ndarray, kinds: list[int]) -> list[dict]:
    """YouTube-VIS annotations of the things that show in some frame of a video."""
    found = []
    for number, kind in enumerate(kinds, start=1):
        track = {"segmentations": [], "bboxes": [], "areas": []}
        for mask in objects == number:
            seen = int(mask.sum()) >= SEEN
            rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
            rle["counts"] = rle["counts"].decode("ascii")
            track["segmentations"].append(rle if seen else None)
            track["bboxes"].append(_box(mask) if seen else None)
            track["areas"].append(int(mask.sum()) if seen else None)
        if any(track["segmentations"]):
            shared = {key: video[key] for key in ("height", "width", "length")}
            own = {"id": first_id + len(found), "video_id": video["id"], "category_id": CATEGORIES[kind][1]}
            found.append({**own, "iscrowd": 0, **shared, **track})
    return found


def _write_split(root: Path, split: str, count: int, size: int, seed: int) -> None:
    videos, tracks = [], []
    for index in range(count):
        frames, objects, kinds = draw_video(seed, SPLITS.index(split), index, size)
        names = [f"{index:03d}/{t:05d}.jpg" for t in range(len(frames))]
        (root / split / "JPEGImages" / f"{index:03d}").mkdir(parents=True)
        for name, frame in zip(names, frames, strict=True):
            Image.fromarray(frame).save(root / split / "JPEGImages" / name, quality=92)
        height, width = frames.shape[1:3]
        video = {"id": index + 1, "file_names": names, "length": len(names), "height": height, "width": width}
        videos.append(video)
        tracks += _tracks(video, len(tracks) + 1, objects, kinds)
    categories = [{"id": c[1], "name": c[0], "color": list(c[3])} for c in CATEGORIES if c[2]]
    content = {"videos": videos, "annotations": tracks, "categories": categories}
    (root / f"{split}.json").write_text(json.dumps(content), encoding="utf-8")


def make(root: str | Path, train: int = 60, valid: int = 12, size: int = 128, seed: int = 0) -> None:
    """Draw the videos into the new folder `root`, which appears only when it is complete.

    Args:
        root: folder to make; one that another process finishes meanwhile is kept.
        train, valid: videos per split.
        size: width of the frames in pixels; they are 3/4 as high.
        seed: another one draws other videos.

    Raises:
        FileExistsError: `root` exists already.
    """
    with appearing(root, "valid.json") as draft:
        for split, count in zip(SPLITS, (train, valid), strict=True):
            _write_split(draft, split, count, size, seed)


def ensure(root: str | Path) -> None:
    """Draw the videos with default settings where `root` does not exist; several processes may call at once."""
    if not Path(root).exists():
        print(f"Drawing videos of moving shapes into {root}", flush=True)
        make(root)
