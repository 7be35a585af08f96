"""Semantic metrics: hand-computed figures, a slow straightforward computation, and properties of the counts."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from mask2former.evaluation.confusion import count_pixels, semantic_metrics
from mask2former.evaluation.semantic import SemSegEvaluator
from mask2former.structures import LabelSet, rle_decode
from mask2former.utils import comm
from mask2former.utils.errors import UserError

NAMES = ("sky", "road", "car", "boat")
K = len(NAMES)


def slow_metrics(truths, predictions, ignore):
    """IoU and accuracy by their definitions, class by class and pixel by pixel."""
    pairs = [(t, p) for a, b in zip(truths, predictions) for t, p in zip(a.ravel(), b.ravel()) if t != ignore]
    iou, acc, share = {}, {}, {}
    for k in range(K):
        true = sum(t == k for t, _ in pairs)
        both = sum(t == k and p == k for t, p in pairs)
        either = sum(t == k or p == k for t, p in pairs)
        if true:
            iou[k], acc[k], share[k] = both / either, both / true, true / len(pairs)
    return {
        "mIoU": 100 * sum(iou.values()) / len(iou),
        "fwIoU": 100 * sum(iou[k] * share[k] for k in iou),
        "mACC": 100 * sum(acc.values()) / len(acc),
        "pACC": 100 * sum(t == p for t, p in pairs) / len(pairs),
        **{f"IoU-{NAMES[k]}": 100 * v for k, v in iou.items()},
        **{f"ACC-{NAMES[k]}": 100 * v for k, v in acc.items()},
    }


def one_hot(classes):
    """Scores [K,H,W] whose argmax is `classes`."""
    return torch.nn.functional.one_hot(torch.from_numpy(classes).long(), K).permute(2, 0, 1).float()


@pytest.fixture
def dataset(tmp_path):
    """Five images of different sizes with ignored pixels, class 3 in predictions only: (inputs, outputs, arrays)."""
    rng = np.random.default_rng(0)
    inputs, outputs, truths, predictions = [], [], [], []
    for i in range(5):
        size = (6 + i, 9 - i)
        truth = rng.integers(0, 3, size).astype(np.uint8)
        truth[rng.random(size) < 0.2] = 255
        predicted = rng.integers(0, K, size)
        path = tmp_path / f"{i}.png"
        Image.fromarray(truth).save(path)
        inputs.append({"file_name": f"{i}.jpg", "sem_seg_file_name": str(path)})
        outputs.append({"sem_seg": one_hot(predicted)})
        truths.append(truth)
        predictions.append(predicted)
    return inputs, outputs, truths, predictions


def test_hand_computed_example():
    # truth: 4 sky, 3 road, 1 car; two ignored. One sky is called road, the car is called road.
    truth = np.array([[0, 0, 0, 0, 255], [1, 1, 1, 2, 255]])
    predicted = np.array([[0, 0, 0, 1, 1], [1, 1, 1, 1, 0]])
    metrics = semantic_metrics(count_pixels(truth, predicted, K, 255), NAMES)
    assert metrics["IoU-sky"] == pytest.approx(75)
    assert metrics["IoU-road"] == pytest.approx(60)
    assert metrics["IoU-car"] == 0
    assert metrics["ACC-sky"] == pytest.approx(75)
    assert metrics["ACC-road"] == pytest.approx(100)
    assert metrics["mIoU"] == pytest.approx(45)
    assert metrics["fwIoU"] == pytest.approx(75 * 4 / 8 + 60 * 3 / 8)
    assert metrics["mACC"] == pytest.approx(175 / 3)
    assert metrics["pACC"] == pytest.approx(75)


def test_equals_the_slow_computation(dataset):
    inputs, outputs, truths, predictions = dataset
    evaluator = SemSegEvaluator(LabelSet(NAMES))
    evaluator.process(inputs, outputs)
    metrics = evaluator.evaluate()["sem_seg"]
    for name, value in slow_metrics(truths, predictions, 255).items():
        assert metrics[name] == pytest.approx(value), name


def test_a_class_without_ground_truth_is_nan_and_left_out_of_the_means(dataset):
    evaluator = SemSegEvaluator(LabelSet(NAMES))
    evaluator.process(*dataset[:2])
    metrics = evaluator.evaluate()["sem_seg"]
    assert np.isnan(metrics["IoU-boat"])
    assert np.isnan(metrics["ACC-boat"])
    assert metrics["mIoU"] == pytest.approx(np.mean([metrics[f"IoU-{n}"] for n in NAMES[:3]]))


def test_order_of_images_and_batches_does_not_matter(dataset):
    inputs, outputs, *_ = dataset
    one, other = SemSegEvaluator(LabelSet(NAMES)), SemSegEvaluator(LabelSet(NAMES))
    one.process(inputs, outputs)
    for i in (3, 0, 4, 1, 2):
        other.process([inputs[i]], [outputs[i]])
    np.testing.assert_array_equal(one.confusion, other.confusion)
    assert one.confusion.dtype == np.int64


def test_shards_add_up(dataset, monkeypatch, tmp_path):
    inputs, outputs, *_ = dataset
    whole = SemSegEvaluator(LabelSet(NAMES))
    whole.process(inputs, outputs)
    expected = whole.evaluate()["sem_seg"]

    shards = [SemSegEvaluator(LabelSet(NAMES)) for _ in range(3)]
    shards[0].process(inputs[:4], outputs[:4])
    shards[1].process(inputs[4:], outputs[4:])  # the third stays empty
    counts = [shard.confusion for shard in shards]
    monkeypatch.setattr(comm, "all_gather", lambda obj: counts)
    for shard in shards:  # every rank reports the whole
        np.testing.assert_equal(shard.evaluate()["sem_seg"], expected)


def test_nothing_counted_gives_nan():
    metrics = SemSegEvaluator(LabelSet(NAMES)).evaluate()["sem_seg"]
    assert len(metrics) == 4 + 2 * K
    assert all(np.isnan(value) for value in metrics.values())


def test_ignored_values_may_lie_inside_the_class_range():
    truth, predicted = np.array([[0, 1, 2]]), np.array([[1, 1, 1]])
    counts = count_pixels(truth, predicted, K, ignore_label=0)
    assert counts.sum() == 2
    assert counts[1, 1] == counts[2, 1] == 1


def test_reset_forgets(dataset):
    evaluator = SemSegEvaluator(LabelSet(NAMES))
    evaluator.process(*dataset[:2])
    evaluator.reset()
    assert evaluator.confusion.sum() == 0


def test_predictions_file_decodes_to_the_predictions(dataset, tmp_path):
    inputs, outputs, _, predictions = dataset
    dataset_ids = (7, 11, 21, 33)
    evaluator = SemSegEvaluator(LabelSet(NAMES, dataset_ids=dataset_ids), tmp_path / "new", save_predictions=True)
    evaluator.process(inputs, outputs)
    evaluator.evaluate()
    entries = json.loads((tmp_path / "new" / "sem_seg_predictions.json").read_text())
    for sample, predicted in zip(inputs, predictions):
        own = [e for e in entries if e["file_name"] == sample["file_name"]]
        decoded = np.full(predicted.shape, -1)
        for entry in own:
            mask = rle_decode(entry["segmentation"])
            assert (decoded[mask] == -1).all()  # no pixel twice
            decoded[mask] = dataset_ids.index(entry["category_id"])
        np.testing.assert_array_equal(decoded, predicted)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["sem_seg_predictions.json"]


def test_predictions_use_class_numbers_where_there_are_no_ids(dataset, tmp_path):
    evaluator = SemSegEvaluator(LabelSet(NAMES), tmp_path, save_predictions=True)
    evaluator.process(*dataset[:2])
    evaluator.evaluate()
    entries = json.loads((tmp_path / "sem_seg_predictions.json").read_text())
    assert {e["category_id"] for e in entries} == set(range(K))


@pytest.mark.parametrize(
    ("truth", "scores", "wanted"),
    [
        (np.zeros((4, 6), np.uint8), torch.zeros(K, 4, 5), ["mask.png", "6x4", "5x4", "a.jpg"]),
        (np.full((4, 5), 9, np.uint8), torch.zeros(K, 4, 5), ["mask.png", "[9]", "[0, 4)", "255"]),
        (np.zeros((4, 5), np.uint8), torch.zeros(K + 2, 4, 5), ["6 classes", "has 4", "NUM_CLASSES"]),
        (np.zeros((4, 5), np.uint8), None, ["SEMANTIC_ON"]),
    ],
    ids=["size", "value", "class count", "no result"],
)
def test_what_does_not_fit_is_named(tmp_path, truth, scores, wanted):
    Image.fromarray(truth).save(tmp_path / "mask.png")
    sample = {"file_name": "a.jpg", "sem_seg_file_name": str(tmp_path / "mask.png")}
    with pytest.raises(UserError) as error:
        SemSegEvaluator(LabelSet(NAMES)).process([sample], [{"sem_seg": scores}])
    for text in wanted:
        assert text in str(error.value)


def test_missing_ground_truth_is_named():
    with pytest.raises(UserError, match="a.jpg has no ground truth"):
        SemSegEvaluator(LabelSet(NAMES)).process([{"file_name": "a.jpg"}], [{"sem_seg": torch.zeros(K, 2, 2)}])
