"""Saved results of each kind beside their ground truth."""

import json

import numpy as np
import pytest
from PIL import Image

from mask2former.data import read_image
from mask2former.structures import rle_encode


@pytest.fixture
def run(tool):
    script = tool("visualize_results")
    return lambda *words: tool("_common").run_main(script.main, [str(word) for word in words])


@pytest.fixture
def annotations(shapes):
    """kind -> the content of the validation split's annotation file."""
    folder = shapes.parent / "shapes" / "annotations"
    return {kind: json.loads((folder / f"{kind}_valid.json").read_text()) for kind in ("instances", "panoptic")}


@pytest.fixture
def results(tmp_path):
    """Writes a result file and returns its folder."""
    folder = tmp_path / "inference"
    folder.mkdir()

    def write(name, content):
        (folder / name).write_text(json.dumps(content))
        return folder

    return write


def halves(folder, size=64):
    """Ground truth and result of each picture."""
    for path in sorted(folder.iterdir()):
        picture = np.array(Image.open(path))
        assert picture.shape == (size, 2 * size + 8, 3)
        yield picture[:, :size], picture[:, size + 8 :]


def test_ground_truth_as_panoptic_result_looks_the_same(run, shapes, annotations, results, tmp_path):
    entries = annotations["panoptic"]["annotations"]
    slim = [
        {**e, "segments_info": [{k: s[k] for k in ("id", "category_id")} for s in e["segments_info"]]} for e in entries
    ]
    folder = results("predictions.json", {"annotations": slim})
    (folder / "panoptic").symlink_to(shapes.parent / "shapes" / "panoptic_valid")
    words = ["--input", folder, "--dataset", "pan_valid", "--config-file", shapes, "--output", tmp_path / "out"]
    assert run(*words) == 0
    for truth, result in halves(tmp_path / "out"):
        np.testing.assert_array_equal(truth, result)


def test_instances_above_the_threshold_are_drawn(run, shapes, annotations, results, tmp_path):
    keys = ("image_id", "category_id", "segmentation")
    found = [{**{k: a[k] for k in keys}, "score": 0.9} for a in annotations["instances"]["annotations"]]
    folder = results("coco_instances_results.json", found)
    for threshold, shown in ((0.5, True), (0.95, False)):
        out = tmp_path / f"out_{shown}"
        words = ["--input", folder, "--dataset", "inst_valid", "--config-file", shapes, "--output", out]
        assert run(*words, "--conf-threshold", threshold) == 0
        for number, (truth, result) in enumerate(halves(out)):
            image = read_image(shapes.parent / "shapes" / "valid" / "images" / f"{number:05d}.jpg")
            assert (truth != image).any()
            assert (result != image).any() == shown


def test_semantic_results_are_drawn(run, shapes, results, tmp_path):
    folder = shapes.parent / "shapes" / "valid"
    found = []
    for path in sorted((folder / "masks").iterdir()):
        classes = np.array(Image.open(path))
        image = str(folder / "images" / f"{path.stem}.jpg")
        found += [
            {"file_name": image, "category_id": int(k), "segmentation": rle_encode(classes == k)}
            for k in np.unique(classes)
        ]
    file = results("sem_seg_predictions.json", found) / "sem_seg_predictions.json"
    words = ["--input", file, "--dataset", "sem_valid", "--config-file", shapes, "--output", tmp_path / "out"]
    assert run(*words) == 0
    for truth, result in halves(tmp_path / "out"):
        np.testing.assert_array_equal(truth, result)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "holds no result"),
        ({"images": []}, "is no result file"),
        ([{"file_name": "a.jpg", "category_id": 0}], "has no 'segmentation'"),
        ([{"file_name": "a.jpg", "category_id": 0, "segmentation": {}}], "no image with the file_name 'a.jpg'"),
    ],
)
def test_files_of_another_form_or_data_set(run, shapes, results, tmp_path, capsys, content, message):
    folder = results("sem_seg_predictions.json", content)
    words = ["--input", folder, "--dataset", "sem_valid", "--config-file", shapes, "--output", tmp_path / "out"]
    assert run(*words) == 2
    assert message in capsys.readouterr().err


def test_a_folder_without_results(run, shapes, tmp_path, capsys):
    assert run("--input", tmp_path, "--dataset", "sem_valid", "--output", tmp_path / "out") == 2
    assert "TEST.SAVE_PREDICTIONS" in capsys.readouterr().err


def test_categories_of_another_data_set(run, shapes, results, tmp_path, capsys):
    image = str(shapes.parent / "shapes" / "valid" / "images" / "00000.jpg")
    rle = rle_encode(np.ones((64, 64)))
    folder = results("sem_seg_predictions.json", [{"file_name": image, "category_id": 77, "segmentation": rle}])
    words = ["--input", folder, "--dataset", "sem_valid", "--config-file", shapes, "--output", tmp_path / "out"]
    assert run(*words) == 2
    assert "no category with the id 77" in capsys.readouterr().err
