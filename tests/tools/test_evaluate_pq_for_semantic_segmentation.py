"""PQ of semantic predictions: every class of an image is one segment."""

import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image

from mask2former.data import DatasetCatalog, MetadataCatalog
from mask2former.evaluation import PanopticQuality, SemSegEvaluator
from mask2former.structures import LabelSet
from mask2former.utils.errors import UserError

LABELS = LabelSet(("a", "b", "c", "d"), dataset_ids=(3, 5, 8, 9))
NAME = "pq_of_semantic_test"


@pytest.fixture
def module(tool):
    return tool("evaluate_pq_for_semantic_segmentation")


@pytest.fixture
def evaluated(tmp_path):
    """Records, and the predictions file of an evaluation whose model errs in places: (records, path, class maps)."""
    rng = np.random.default_rng(0)
    evaluator = SemSegEvaluator(LABELS, tmp_path, save_predictions=True)
    records, maps = [], []
    for i in range(4):
        truth = np.repeat(rng.integers(0, 3, (1, 6)), 5, 0).astype(np.uint8)
        truth[rng.random(truth.shape) < 0.1] = 255
        predicted = np.where(rng.random(truth.shape) < 0.25, rng.integers(0, 4, truth.shape), np.minimum(truth, 2))
        Image.fromarray(truth).save(tmp_path / f"{i}.png")
        records.append({"file_name": f"images/{i}.jpg", "sem_seg_file_name": str(tmp_path / f"{i}.png")})
        scores = torch.nn.functional.one_hot(torch.from_numpy(predicted).long(), 4).permute(2, 0, 1)
        evaluator.process(records[-1:], [{"sem_seg": scores}])
        maps.append((truth, predicted))
    evaluator.evaluate()
    return records, tmp_path / "sem_seg_predictions.json", maps


def test_equals_panoptic_quality_of_the_classes_as_segments(module, evaluated):
    records, path, maps = evaluated
    expected = PanopticQuality(4)
    for truth, predicted in maps:
        ids = [np.where(m == 255, 0, 10 + m.astype(int)) for m in (truth, predicted)]
        segments = [[{"id": int(i), "category_id": int(i) - 10} for i in np.unique(m) if i] for m in ids]
        expected.add(ids[0], segments[0], ids[1], segments[1])
    results = module.evaluate(records, json.loads(path.read_text()), LABELS)
    np.testing.assert_allclose(list(results.values()), list(expected.results(LABELS).values()))
    assert 0 < results["PQ"] < 100


def test_command_line_logs_the_table(module, evaluated, monkeypatch):
    records, path, _ = evaluated
    DatasetCatalog.register(NAME, lambda: records)
    MetadataCatalog.get(NAME).set(
        stuff_classes=[*LABELS.names], stuff_dataset_id_to_contiguous_id={own: i for i, own in enumerate((3, 5, 8, 9))}
    )
    said = []
    monkeypatch.setattr(
        logging.getLogger("mask2former.evaluation.report"), "info", lambda text, *args: said.append(text % args)
    )
    assert module.main(["--dataset-name", NAME, "--json-file", str(path)]) == 0
    assert all(f"| {name} " in said[0] for name in LABELS.names)
    assert "| Stuff " in said[1]


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"file_name": "images/9.jpg"}, r"no prediction for images/0\.jpg"),
        ({"category_id": 4}, "category id 4"),
        ({"segmentation": {"size": [5, 7], "counts": [35]}}, "7x5 pixels, its ground truth 6x5"),
    ],
)
def test_predictions_that_do_not_fit_are_named(module, evaluated, change, wanted):
    records, path, _ = evaluated
    entries = [{**e, **change} for e in json.loads(path.read_text())]
    with pytest.raises(UserError, match=wanted):
        module.evaluate(records, entries, LABELS)


def test_another_file_is_refused(module, evaluated, tmp_path):
    (tmp_path / "other.json").write_text('{"annotations": []}')
    DatasetCatalog.register(NAME, lambda: evaluated[0])
    with pytest.raises(UserError, match=r"other\.json is not a list of semantic predictions"):
        module.main(["--dataset-name", NAME, "--json-file", str(tmp_path / "other.json")])
