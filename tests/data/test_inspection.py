"""Single records looked through."""

import numpy as np
import pytest
from PIL import Image

from mask2former.data.inspection.records import Classes, inspect_record
from mask2former.structures import rle_encode, rle_runs

NAMES = ("a", "b")
CLASSES = Classes(dict.fromkeys(("panoptic", "instances", "semantic"), NAMES), 255)


@pytest.fixture
def inspect(tmp_path):
    """Function of the annotations of a 10x20 image, and more of its record."""
    path = tmp_path / "image.png"
    Image.fromarray(np.zeros((10, 20, 3), np.uint8)).save(path)

    def run(annotations, queries=100, **values):
        record = {"file_name": str(path), "height": 10, "width": 20, "annotations": annotations, **values}
        return inspect_record(record, CLASSES, queries)

    return run


def _kinds(seen):
    return [finding.kind for finding in seen.findings]


def _mask(height=10, width=20, filled=5):
    mask = np.zeros((height, width), bool)
    mask[:filled, :filled] = True
    return mask


@pytest.mark.parametrize(
    "segmentation",
    [
        _mask(),
        rle_encode(_mask()),
        {"size": [10, 20], "counts": [0, 5, 5, 5, 5, 5, 5, 5, 5, 5, 155]},
        [[0, 0, 5, 0, 5, 5, 0, 5]],
    ],
    ids=["bitmask", "RLE", "uncompressed RLE", "polygon"],
)
def test_every_form_of_mask_is_measured(inspect, segmentation):
    seen = inspect([{"category_id": 1, "segmentation": segmentation}])
    assert seen.findings == [] and seen.kinds == {"instances": {1: (25, 1)}}


@pytest.mark.parametrize(
    "segmentation, kind",
    [
        (_mask(20, 10), "size"),
        (rle_encode(_mask(20, 10)), "size"),
        ({"size": [10, 20], "counts": [0, 5, 190]}, "RLE"),
        ({"size": [10, 20], "counts": "0"}, "RLE"),
        ({**rle_encode(_mask()), "counts": rle_encode(_mask())["counts"][:-1]}, "RLE"),
        ({"size": [10, 20], "counts": "\u00e9\u00e9"}, "RLE"),
        ("nothing", "RLE"),
        ([[0, 0, 5, 5]], "polygon"),
        ([[0, 0, 5, float("nan"), 3, 3]], "polygon"),
        ([[0, 0, 5, 0, 5]], "polygon"),
        ([[0, 0, 5, 5, 9, 9]], "polygon"),
        ([[0, 0, 50, 0, 50, 5]], "polygon"),
        ([], "no mask"),
        (None, "no mask"),
        (_mask(filled=0), "empty annotation"),
        (_mask(filled=3), "tiny annotation"),
    ],
)
def test_broken_masks_have_their_kind(inspect, segmentation, kind):
    sound = {"category_id": 0, "segmentation": _mask()}
    seen = inspect([{"id": 7, "category_id": 0, "segmentation": segmentation}, sound])
    assert _kinds(seen) == [kind] and "annotation 7" in seen.findings[0].place
    assert seen.kinds["instances"][0][0] >= 25


def test_crowds_are_no_targets(inspect):
    crowd = {"category_id": 0, "segmentation": _mask(), "iscrowd": 1}
    thing = {"category_id": 1, "segmentation": _mask()}
    assert _kinds(inspect([crowd, crowd, thing], queries=1)) == []
    assert _kinds(inspect([thing, thing], queries=1)) == ["many targets"]
    assert _kinds(inspect([crowd])) == ["no labels"]


def test_records_of_any_form_become_findings(inspect, tmp_path):
    assert _kinds(inspect_record({}, CLASSES, 1)) == _kinds(inspect_record("a.jpg", CLASSES, 1)) == ["record"]
    assert _kinds(inspect(5)) == ["record"]
    assert _kinds(inspect([{"category_id": 0, "segmentation": _mask()}], height=11)) == ["size"]
    assert _kinds(inspect(None, file_name=str(tmp_path / "absent.png"))) == ["image", "no labels"]


def test_the_hash_is_that_of_the_file(inspect, tmp_path):
    first = inspect([])
    (tmp_path / "copy.png").write_bytes((tmp_path / "image.png").read_bytes())
    assert inspect([], file_name=str(tmp_path / "copy.png")).digests.keys() == first.digests.keys() != set()
    Image.fromarray(np.ones((10, 20, 3), np.uint8)).save(tmp_path / "copy.png")
    assert inspect([], file_name=str(tmp_path / "copy.png")).digests.keys() != first.digests.keys()


@pytest.mark.parametrize("seed", range(5))
def test_compressed_rle_is_read_as_pycocotools_writes_it(seed):
    rng = np.random.default_rng(seed)
    mask = np.repeat(rng.random((10, 20)) < rng.random(), 8, axis=0)[: 10 * rng.integers(1, 9)]
    rle = rle_encode(mask)
    assert rle_runs(rle["counts"])[1::2].sum() == mask.sum() and rle_runs(rle["counts"]).sum() == mask.size
    assert rle_runs(rle["counts"].encode()).tolist() == rle_runs(rle["counts"]).tolist()
