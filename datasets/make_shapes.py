"""Draw the shapes data set: a small world with textured ground and overlapping shapes, annotated in three formats.

    python datasets/make_shapes.py --output datasets/shapes [--train 400 --valid 50 --size 128 --seed 0]
    python datasets/make_shapes.py --video [--output datasets/shapes_video --train 60 --valid 12 --size 128 --seed 0]

Things: circle, square, triangle, star, ring. Stuff: grass, sand, water. Every pixel is labelled. The same arguments
draw the same data set; image i of a split does not depend on how many others there are.

    classes.json                                 names in the order of the semantic ids, colours, ignore value
    train/images/00000.jpg, train/masks/00000.png     semantic: 8-bit ids; valid/ likewise
    annotations/instances_{train,valid}.json     COCO instances (RLE), things only
    panoptic_{train,valid}/00000.png             COCO panoptic: segment id = R + 256 G + 65536 B
    annotations/panoptic_{train,valid}.json      its segments

As in COCO, the category ids of the JSON files have gaps and differ from the semantic ids: see CATEGORIES.
With --video the things move, cover each other, come and go, in YouTube-VIS's form: see `_moving_shapes.py`.
"""

from __future__ import annotations

import argparse
import colorsys
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

# semantic id = place in this list: (name, category id in the COCO files, is a thing, colour)
CATEGORIES = (
    ("circle", 1, True, (214, 39, 40)),
    ("square", 2, True, (125, 60, 200)),
    ("triangle", 3, True, (240, 120, 20)),
    ("star", 5, True, (250, 205, 30)),
    ("ring", 7, True, (235, 70, 160)),
    ("grass", 11, False, (70, 140, 60)),
    ("sand", 12, False, (205, 180, 130)),
    ("water", 14, False, (50, 110, 190)),
)
THINGS = 5  # the first ids are things
HUES = (0.0, 0.74, 0.075, 0.14, 0.9)  # typical hue of each thing, 0 to 1
SPLITS = ("train", "valid")
VISIBLE = 0.35  # things of which less than this share can be seen are left out,
SMALLEST = 0.004  # and those that take less than this share of the picture

# S: side of the square image; arrays are [S,S] or [S,S,3], colours 0 to 1; x and y are shares of S, u and v of a radius


def _noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Smooth noise [S,S] in 0 to 1 with about `cells` bumps per side."""
    grid = Image.fromarray(rng.random((cells + 3, cells + 3), dtype=np.float32))
    edge = size / cells
    box = (1.0, 1.0, 1.0 + size / edge, 1.0 + size / edge)
    return np.clip(np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC, box=box)), 0, 1)


def _mix(low: tuple, high: tuple, amount: np.ndarray) -> np.ndarray:
    """Colours [S,S,3] between two RGB colours."""
    low, high = np.array(low, np.float32), np.array(high, np.float32)
    return low + (high - low) * amount[..., None]


def _grass(rng: np.random.Generator, size: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    blades = np.asarray(
        Image.fromarray(rng.random((size // 8 + 1, size // 2 + 1), dtype=np.float32)).resize(
            (size, size), Image.Resampling.BICUBIC
        )
    )
    return _mix((0.13, 0.33, 0.12), (0.50, 0.70, 0.30), 0.55 * blades + 0.45 * _noise(rng, size, 6))


def _sand(rng: np.random.Generator, size: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    angle, bend = rng.uniform(-0.6, 0.6), _noise(rng, size, 4)
    ripples = 0.5 + 0.5 * np.sin(70 * (y * np.cos(angle) + x * np.sin(angle)) + 9 * bend)
    grain = rng.random((size, size), dtype=np.float32)
    return _mix((0.66, 0.55, 0.38), (0.93, 0.85, 0.66), 0.45 * ripples + 0.3 * bend + 0.25 * grain)


def _water(rng: np.random.Generator, size: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    swell = _noise(rng, size, 5)
    waves = 0.5 + 0.5 * np.sin(45 * y + 6 * np.sin(8 * x + 6 * swell) + 8 * swell)
    return _mix((0.06, 0.22, 0.46), (0.36, 0.66, 0.85), 0.6 * waves**2 + 0.4 * _noise(rng, size, 9))


GROUNDS = (_grass, _sand, _water)


def _background(rng: np.random.Generator, size: int, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours [S,S,3] and semantic ids [S,S] of two or three regions with wavy borders."""
    kinds = rng.permutation(3)[: rng.integers(2, 4)]
    seeds = rng.random((len(kinds), 2))
    wave_x, wave_y = (0.25 * (_noise(rng, size, 4) - 0.5) for _ in range(2))
    distance = [np.hypot(x + wave_x - sx, y + wave_y - sy) for sx, sy in seeds]
    region = kinds[np.argmin(distance, axis=0)]
    colors = np.zeros((size, size, 3), np.float32)
    for kind in kinds:
        inside = region == kind
        colors[inside] = GROUNDS[kind](rng, size, x, y)[inside]
    return colors, (region + THINGS).astype(np.uint8)


def _polygon(u: np.ndarray, v: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Signed distance to a polygon [P,2], negative inside."""
    nearest, inside = np.full(u.shape, np.inf), np.zeros(u.shape, bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        ex, ey = bx - ax, by - ay
        t = np.clip(((u - ax) * ex + (v - ay) * ey) / (ex * ex + ey * ey), 0, 1)
        nearest = np.minimum(nearest, np.hypot(u - ax - t * ex, v - ay - t * ey))
        if ay != by:
            inside ^= ((ay > v) != (by > v)) & (u < ex * (v - ay) / ey + ax)
    return np.where(inside, -nearest, nearest)


def _corners(radii: list[float]) -> np.ndarray:
    """Corners [P,2] at equal angles, the first one on top."""
    angles = 2 * np.pi * np.arange(len(radii)) / len(radii)
    return np.stack([np.sin(angles), -np.cos(angles)], axis=1) * np.array(radii)[:, None]


def _distance(thing: int, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Signed distance [S,S] to the outline of a thing of radius 1, negative inside."""
    if thing == 0:
        return np.hypot(u, v) - 1
    if thing == 4:
        return np.abs(np.hypot(u, v) - 0.75) - 0.25
    return _polygon(u, v, _corners({1: [1.1] * 4, 2: [1.2] * 3, 3: [1.2, 0.52] * 5}[thing]))


class _Thing:
    """One thing on the canvas: its kind, and in the window it may touch the distance to its outline in pixels.

    Args:
        kind: place in CATEGORIES.
        radius: in pixels.
        turn: in radians.
        center: (y, x) in pixels; it may lie outside the canvas.
        size: S.
        offset: of the shadow, in pixels.
    """

    def __init__(self, kind: int, radius: float, turn: float, center: np.ndarray, size: int, offset: int):
        self.kind = kind
        reach = 1.3 * radius + 3 * offset  # room for the corners and the shadow
        low, high = (np.clip(edge, 0, size).astype(int) for edge in (center - reach, center + reach + 1))
        self.window = (slice(low[0], high[0]), slice(low[1], high[1]))
        grid = np.mgrid[self.window] + 0.5
        self.v, self.u = ((axis - c) / radius for axis, c in zip(grid, center, strict=True))
        across, along = self.u * np.cos(turn) + self.v * np.sin(turn), self.v * np.cos(turn) - self.u * np.sin(turn)
        self.depth = _distance(self.kind, across, along) * radius
        self.inside = self.depth < 0

    @classmethod
    def random(cls, rng: np.random.Generator, size: int, offset: int) -> _Thing:
        kind, radius, turn = int(rng.integers(THINGS)), rng.uniform(0.08, 0.21) * size, rng.uniform(0, 2 * np.pi)
        return cls(kind, radius, turn, rng.uniform(0.05, 0.95, 2) * size, size, offset)


def _place(rng: np.random.Generator, size: int, offset: int) -> list[_Thing]:
    """Three to seven things from back to front, those that are hidden left out."""
    things, covered = [], np.zeros((size, size), bool)
    for _ in range(rng.integers(3, 8)):  # from front to back
        thing = _Thing.random(rng, size, offset)
        visible = (thing.inside & ~covered[thing.window]).sum()
        if visible >= max(VISIBLE * thing.inside.sum(), SMALLEST * size * size):
            covered[thing.window] |= thing.inside
            things.append(thing)
    return things[::-1]


def _paint(rng: np.random.Generator, thing: _Thing, size: int) -> np.ndarray:
    """Colours of a thing's window: its hue with one of four patterns, lit from the upper left, darker at the rim."""
    u, v = thing.u, thing.v
    hue = (HUES[thing.kind] + rng.normal(0, 0.015)) % 1
    saturation, value = rng.uniform(0.7, 0.95), rng.uniform(0.75, 1.0)
    angle, period = rng.uniform(0, np.pi), rng.uniform(7, 14)
    along = period * (u * np.cos(angle) + v * np.sin(angle))
    across = period * (v * np.cos(angle) - u * np.sin(angle))
    pattern = (
        lambda: np.zeros_like(u),
        lambda: 0.5 + 0.5 * np.tanh(4 * np.sin(along)),
        lambda: 0.5 + 0.5 * np.tanh(4 * (np.sin(along) * np.sin(across) - 0.4)),
        lambda: _noise(rng, max(u.shape), 6)[: u.shape[0], : u.shape[1]],
    )[rng.integers(4)]()
    rim = np.exp(-((thing.depth / (0.022 * size)) ** 2))
    light = np.clip(1.1 - 0.2 * (u + v), 0.7, 1.4) * (1 - 0.35 * pattern) * (1 - 0.45 * rim)
    return np.clip(np.array(colorsys.hsv_to_rgb(hue, saturation, value)) * light[..., None], 0, 1)


def draw(seed: int, split: int, index: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One picture of the world, from its own random generator.

    Returns:
        image uint8 [S,S,3]; sem_seg uint8 [S,S], places in CATEGORIES; objects uint8 [S,S], 0 for stuff and 1, 2 ...
        for the visible part of each thing.
    """
    rng = np.random.default_rng([seed, split, index])
    y, x = (np.mgrid[:size, :size].astype(np.float32) + 0.5) / size
    colors, sem_seg = _background(rng, size, x, y)
    objects = np.zeros((size, size), np.uint8)
    offset = max(1, size // 50)  # of a shadow, to the right and below
    for number, thing in enumerate(_place(rng, size, offset), start=1):
        _lay(colors, thing, rng, offset)
        sem_seg[thing.window][thing.inside] = thing.kind
        objects[thing.window][thing.inside] = number
    return _finish(rng, colors), sem_seg, objects


def _lay(colors: np.ndarray, thing: _Thing, rng: np.random.Generator, offset: int) -> None:
    """Paint a thing and its shadow over colours [S,S,3], in place."""
    here, depth = thing.window, thing.depth
    below = np.pad(depth, ((offset, 0), (offset, 0)), mode="edge")[: depth.shape[0], : depth.shape[1]]
    shadow = 0.4 * np.clip(1 - below / (1.5 * offset), 0, 1)[..., None]
    cover = np.clip(0.5 - depth, 0, 1)[..., None]  # soft over one pixel
    colors[here] = colors[here] * (1 - shadow) * (1 - cover) + _paint(rng, thing, len(colors)) * cover


def _finish(rng: np.random.Generator, colors: np.ndarray) -> np.ndarray:
    """Colours 0 to 1 as uint8, with the noise of a camera."""
    return (np.clip(colors + rng.normal(0, 0.02, colors.shape), 0, 1) * 255 + 0.5).astype(np.uint8)


def _box(mask: np.ndarray) -> list[int]:
    """[x, y, width, height] in pixels."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)]


def _segment(mask: np.ndarray, kind: int, **values: object) -> dict:
    """What COCO says of any segment: an instance, or a segment of a panoptic picture."""
    return {"category_id": CATEGORIES[kind][1], "area": int(mask.sum()), "bbox": _box(mask), "iscrowd": 0, **values}


def _instances(image_id: int, first_id: int, sem_seg: np.ndarray, objects: np.ndarray) -> list[dict]:
    """COCO instance annotations of one picture."""
    found = []
    for number in range(1, int(objects.max()) + 1):
        mask = objects == number
        rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        rle["counts"] = rle["counts"].decode("ascii")
        kind = int(sem_seg[mask][0])
        found.append(_segment(mask, kind, id=first_id + len(found), image_id=image_id, segmentation=rle))
    return found


def _panoptic(sem_seg: np.ndarray, objects: np.ndarray) -> tuple[np.ndarray, list[dict]]:
    """The coloured map [S,S,3] of segment ids and its segments; ids are 1000 x category id + number of the thing."""
    ids = np.array([c[1] for c in CATEGORIES])[sem_seg] * 1000 + objects.astype(np.int64)
    segments = []
    for segment_id in np.unique(ids).tolist():
        mask = ids == segment_id
        segments.append(_segment(mask, int(sem_seg[mask][0]), id=segment_id))
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8), segments


def _write_split(root: Path, split: str, count: int, size: int, seed: int) -> None:
    for folder in (root / split / "images", root / split / "masks", root / f"panoptic_{split}", root / "annotations"):
        folder.mkdir(parents=True, exist_ok=True)
    images, instances, panoptic = [], [], []
    for index in range(count):
        stem = f"{index:05d}"
        image, sem_seg, objects = draw(seed, SPLITS.index(split), index, size)
        Image.fromarray(image).save(root / split / "images" / f"{stem}.jpg", quality=95, subsampling=0)
        Image.fromarray(sem_seg).save(root / split / "masks" / f"{stem}.png")
        colored, segments = _panoptic(sem_seg, objects)
        Image.fromarray(colored).save(root / f"panoptic_{split}" / f"{stem}.png")
        images.append({"id": index + 1, "file_name": f"{stem}.jpg", "height": size, "width": size})
        instances += _instances(index + 1, len(instances) + 1, sem_seg, objects)
        panoptic.append({"image_id": index + 1, "file_name": f"{stem}.png", "segments_info": segments})
    categories = [{"id": c[1], "name": c[0], "isthing": int(c[2]), "color": list(c[3])} for c in CATEGORIES]
    things = [{"id": c["id"], "name": c["name"]} for c in categories if c["isthing"]]
    for kind, known, found in (("instances", things, instances), ("panoptic", categories, panoptic)):
        content = {"images": images, "annotations": found, "categories": known}
        (root / "annotations" / f"{kind}_{split}.json").write_text(json.dumps(content), encoding="utf-8")


@contextmanager
def appearing(root: str | Path, mark: str) -> Iterator[Path]:
    """A folder to draw into, which becomes `root` when the block ends well, and goes otherwise.

    Args:
        root: folder to make; one that another process finishes meanwhile is kept.
        mark: a file that every finished folder has.

    Raises:
        FileExistsError: `root` exists already.
    """
    root = Path(root)
    if root.exists():
        raise FileExistsError(f"{root} exists already; remove it first, or give another --output.")
    root.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        yield draft
        draft.chmod(0o755)  # temporary folders are private
        try:
            os.rename(draft, root)
        except OSError:
            if not (root / mark).is_file():  # no other process was faster
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def make(root: str | Path, train: int = 400, valid: int = 50, size: int = 128, seed: int = 0) -> None:
    """Draw the data set into the new folder `root`, which appears only when it is complete.

    Args:
        root: folder to make; one that another process finishes meanwhile is kept.
        train, valid: pictures per split.
        size: side of the pictures in pixels.
        seed: another one draws other pictures.

    Raises:
        FileExistsError: `root` exists already.
    """
    with appearing(root, "classes.json") as draft:
        for split, count in zip(SPLITS, (train, valid), strict=True):
            _write_split(draft, split, count, size, seed)
        classes = {"classes": [c[0] for c in CATEGORIES], "ignore_label": 255, "colors": [c[3] for c in CATEGORIES]}
        (draft / "classes.json").write_text(json.dumps(classes), encoding="utf-8")


def ensure(root: str | Path) -> None:
    """Draw the data set with default settings where `root` does not exist; several processes may call at once."""
    if not Path(root).exists():
        print(f"Drawing the shapes data set into {root}", flush=True)
        make(root)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--video", action="store_true", help="draw videos of moving shapes")
    parser.add_argument("--output", help="folder to make (default: datasets/shapes, or datasets/shapes_video)")
    parser.add_argument("--train", type=int, help="training pictures (default: 400) or videos (60)")
    parser.add_argument("--valid", type=int, help="validation pictures (default: 50) or videos (12)")
    parser.add_argument("--size", type=int, default=128, help="side of a picture, or width of a video, in pixels")
    parser.add_argument("--seed", type=int, default=0, help="another one draws other pictures")
    args = parser.parse_args()
    if args.video:
        from _moving_shapes import make as draw_all  # beside this script; it builds on this one

        what, root, counts = "videos", "datasets/shapes_video", (60, 12)
    else:
        draw_all, what, root, counts = make, "pictures", "datasets/shapes", (400, 50)
    root = args.output or root
    train, valid = (own if own is not None else count for own, count in zip((args.train, args.valid), counts))
    try:
        draw_all(root, train, valid, args.size, args.seed)
    except FileExistsError as error:
        parser.exit(2, f"error: {error}\n")
    print(f"{train} training and {valid} validation {what} in {root}")


if __name__ == "__main__":
    main()
