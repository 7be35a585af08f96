"""The tool for boundary AP."""

import json

import numpy as np
import pytest
import torch

from mask2former.data.datasets.coco_json import read_coco
from mask2former.evaluation import InstanceEvaluator
from mask2former.structures import Instances, LabelSet, rle_encode

LABELS = LabelSet(("a", "b"), dataset_ids=(4, 2))
SIZE = 40, 50


@pytest.fixture
def module(tool):
    return tool("evaluate_coco_boundary_ap")


@pytest.fixture
def files(tmp_path):
    """Paths of ground truth and predictions, and the evaluator's figures for them."""
    rng = np.random.default_rng(0)
    annotations, inputs, outputs = [], [], []
    for image in ("y", "x"):
        masks = []
        for k in (0, 1, 1):
            masks.append(block(rng))
            described = {"id": len(annotations) + 1, "image_id": image, "category_id": LABELS.dataset_ids[k]}
            annotations.append({**described, "segmentation": rle_encode(masks[-1])})
        predicted = torch.from_numpy(np.stack([*(np.roll(mask, 1, 1) for mask in masks), block(rng)]))
        fields = {"scores": torch.tensor([0.9, 0.4, 0.7, 0.6]), "pred_classes": torch.tensor([0, 1, 1, 0])}
        inputs.append({"image_id": image, "file_name": f"{image}.jpg"})
        outputs.append({"instances": Instances(SIZE, pred_masks=predicted, **fields)})
    images = [{"id": i, "file_name": f"{i}.jpg", "height": SIZE[0], "width": SIZE[1]} for i in ("y", "x")]
    categories = [{"id": own, "name": name} for own, name in zip(LABELS.dataset_ids, LABELS.names)]
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    evaluator = InstanceEvaluator(LABELS, tmp_path, json_file=truth, save_predictions=True)
    evaluator.process(inputs, outputs)
    return truth, tmp_path / "coco_instances_results.json", evaluator.evaluate()


def block(rng):
    mask = np.zeros(SIZE, bool)
    top, left = rng.integers(0, 15, 2)
    mask[top : top + rng.integers(10, 20), left : left + rng.integers(10, 30)] = True
    return mask


@pytest.mark.parametrize("task", ["segm", "bbox"])
def test_repeats_the_evaluators_figures(module, files, task):
    truth, predictions, expected = files
    found = module.evaluate(read_coco(truth), module.read_predictions(predictions, task), task, 0.02)
    np.testing.assert_equal(found, expected[task])
    assert 10 < found["AP"] < 100


def test_boundaries(module, files):
    truth, predictions, expected = files
    entries = module.read_predictions(predictions, "boundary")
    narrow, wide = (module.evaluate(read_coco(truth), entries, "boundary", ratio)["AP"] for ratio in (0.02, 0.4))
    assert narrow < wide == pytest.approx(expected["segm"]["AP"])  # a wide boundary is the whole mask


def run(module, *words):
    return module.run_main(module.main, [str(word) for word in words])


def test_command_line(module, files, capfd):
    truth, predictions, _ = files
    assert run(module, "--gt-json-file", truth, "--dt-json-file", predictions) == 0
    printed = capfd.readouterr()
    assert "boundary" in printed.out + printed.err
    assert "AP75" in printed.out + printed.err


def test_files_that_do_not_fit(module, files, capfd):
    truth, predictions, _ = files
    assert run(module, "--gt-json-file", truth, "--dt-json-file", truth) == 2
    assert "not a list of predictions" in capfd.readouterr().err
    entries = json.loads(predictions.read_text())
    predictions.write_text(json.dumps([{**entries[0], "image_id": "z"}]))
    assert run(module, "--gt-json-file", truth, "--dt-json-file", predictions) == 2
    assert "'z', which is no image of" in capfd.readouterr().err
    content = json.loads(truth.read_text())
    del content["images"][1]["width"]
    truth.write_text(json.dumps(content))
    assert run(module, "--gt-json-file", truth, "--dt-json-file", predictions) == 2
    assert "image 'x' has no height or width" in capfd.readouterr().err
