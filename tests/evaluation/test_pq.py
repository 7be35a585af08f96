"""Panoptic quality against its definition, written out segment by segment, and properties that it has."""

import numpy as np
import pytest

from mask2former.evaluation.pq import ID_LIMIT, PanopticQuality, pq_stats
from mask2former.structures import LabelSet

K = 4
LABELS = LabelSet(("cat", "dog", "sky", "road"), thing_ids=(0, 1))
SIZE = (40, 50)


def slow_sums(true_ids, true_segments, ids, segments):
    """Summed IoU, TP, FP and FN per class by the definition: two loops over the segments' masks."""
    sums = np.zeros((4, K))
    matched_true, matched = set(), set()
    void = true_ids == 0
    for true in true_segments:
        for segment in segments:
            if true["iscrowd"] or true["category_id"] != segment["category_id"]:
                continue
            a, b = true_ids == true["id"], ids == segment["id"]
            union = (a | (b & ~void)).sum()
            if union and (a & b).sum() / union > 0.5:
                matched_true.add(true["id"])
                matched.add(segment["id"])
                sums[:2, true["category_id"]] += (a & b).sum() / union, 1
    for segment in segments:
        mask, ignored = ids == segment["id"], void.copy()
        for true in true_segments:
            if true["iscrowd"] and true["category_id"] == segment["category_id"]:
                ignored |= true_ids == true["id"]
        if segment["id"] not in matched and (mask & ignored).sum() / mask.sum() <= 0.5:
            sums[2, segment["category_id"]] += 1
    for true in true_segments:
        if not true["iscrowd"] and true["id"] not in matched_true:
            sums[3, true["category_id"]] += 1
    return sums


def sums_of(stats):
    return np.stack([stats.iou, stats.tp, stats.fp, stats.fn])


def regions(rng, count):
    """Number 0 to count - 1 of each pixel, [H,W]: nearest of random centres, with wavy borders."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]].astype(float)
    y, x = y + 3 * np.sin(x / 5), x + 3 * np.sin(y / 4)
    centers = rng.random((count, 2)) * SIZE
    return np.stack([(y - cy) ** 2 + (x - cx) ** 2 for cy, cx in centers]).argmin(0)


def draw(seed):
    """Truth with void and crowd, and a prediction of it that is moved, split, merged, renamed and spotted."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 14))
    own = regions(rng, count)
    names = 1 + rng.choice(ID_LIMIT - 1, count, replace=False)
    classes, crowd, void = rng.integers(0, K, count), rng.random(count) < 0.25, rng.random(count) < 0.2
    true_ids = np.where(void[own], 0, names[own])
    true_segments = [
        {"id": int(names[i]), "category_id": int(classes[i]), "iscrowd": int(crowd[i])}
        for i in range(count)
        if not void[i] and (own == i).any()
    ]
    ids = 1 + np.roll(own, rng.integers(0, 5, 2), (0, 1))
    split, merged, into = rng.integers(1, count + 1, 3)
    ids[(ids == split) & (np.arange(SIZE[1]) > SIZE[1] // 2)] = count + 1
    ids[ids == merged] = into
    ids[rng.random(SIZE) < rng.choice([0, 0.1, 0.6])] = 0
    predicted_classes = np.append(classes, classes[split - 1])
    wrong = rng.random(count + 1) < 0.15
    predicted_classes[wrong] = rng.integers(0, K, wrong.sum())
    segments = [{"id": int(i), "category_id": int(predicted_classes[i - 1])} for i in np.unique(ids) if i]
    return true_ids, true_segments, ids, segments


def test_equals_the_definition():
    total = np.zeros((4, K))
    for seed in range(60):
        expected = slow_sums(*draw(seed))
        np.testing.assert_allclose(sums_of(pq_stats(*draw(seed), K)), expected, rtol=1e-12, err_msg=f"seed {seed}")
        total += expected
    assert (total > 10).all()  # the drawn maps have matches and mistakes of every kind in every class


def test_figures_of_a_hand_computed_example():
    # cat: IoU 0.8 and one missed; dog: one false; sky: IoU 1; road does not occur
    quality = PanopticQuality(K)
    truth = np.array([[1] * 4 + [2] * 2 + [3] * 4])
    predicted = np.array([[1] * 4 + [1] + [2] + [3] * 4])
    true_segments = [{"id": i, "category_id": c} for i, c in ((1, 0), (2, 0), (3, 2))]
    quality.add(truth, true_segments, predicted, [{"id": i, "category_id": c} for i, c in ((1, 0), (2, 1), (3, 2))])
    results = quality.results(LABELS)
    assert results["SQ-cat"] == pytest.approx(80)
    assert results["RQ-cat"] == pytest.approx(100 / 1.5)
    assert results["PQ-cat"] == pytest.approx(80 / 1.5)
    assert results["PQ-dog"] == results["SQ-dog"] == results["RQ-dog"] == 0
    assert results["PQ_st"] == results["SQ-sky"] == results["RQ-sky"] == 100
    assert np.isnan(results["PQ-road"])
    assert results["PQ_th"] == pytest.approx(40 / 1.5)
    assert results["PQ"] == pytest.approx((80 / 1.5 + 0 + 100) / 3)
    assert results["SQ"] == pytest.approx((80 + 0 + 100) / 3)


@pytest.mark.parametrize("overlap", [5, 6])
def test_an_iou_of_one_half_does_not_match(overlap):
    truth, predicted = np.zeros((2, 1, 20), int)
    truth[0, :10], predicted[0, 10 - overlap : 10] = 1, 1  # IoU overlap / 10
    truth[truth == 0] = 2
    true_segments = [{"id": 1, "category_id": 0}, {"id": 2, "category_id": 3}]
    stats = pq_stats(truth, true_segments, predicted, [{"id": 1, "category_id": 0}], K)
    assert stats.tp[0] == (overlap == 6)
    assert stats.fn[0] == stats.fp[0] == (overlap == 5)


@pytest.mark.parametrize("kind", ["void", "crowd"])
@pytest.mark.parametrize(("covered", "counts"), [(5, 1), (6, 0)])
def test_a_false_segment_counts_unless_most_of_it_lies_on_void_or_crowd(kind, covered, counts):
    truth, predicted = np.full((1, 20), 1), np.zeros((1, 20), int)
    truth[0, 10 - covered : 10] = 0 if kind == "void" else 2
    predicted[0, :10] = 7
    segments = [{"id": 1, "category_id": 3}]
    if kind == "crowd":
        segments.append({"id": 2, "category_id": 0, "iscrowd": 1})
    stats = pq_stats(truth, segments, predicted, [{"id": 7, "category_id": 0}], K)
    assert stats.fp[0] == counts
    assert stats.fn[0] == 0  # a crowd region is never missed


def test_crowd_of_another_class_excuses_nothing():
    truth, predicted = np.ones((1, 4), int), np.ones((1, 4), int)
    crowd = [{"id": 1, "category_id": 1, "iscrowd": 1}]
    assert pq_stats(truth, crowd, predicted, [{"id": 1, "category_id": 0}], K).fp[0] == 1


def test_new_ids_and_order_of_segments_change_nothing():
    rng = np.random.default_rng(0)
    for seed in range(10):
        true_ids, true_segments, ids, segments = draw(seed)
        new = {s["id"]: int(n) for s, n in zip(segments, 1 + rng.choice(ID_LIMIT - 1, len(segments), replace=False))}
        renamed = np.zeros_like(ids)
        for old, name in new.items():
            renamed[ids == old] = name
        shuffled = [{**s, "id": new[s["id"]]} for s in rng.permutation(segments)]
        other = pq_stats(true_ids, list(rng.permutation(true_segments)), renamed, shuffled, K)
        np.testing.assert_allclose(sums_of(other), sums_of(pq_stats(*draw(seed), K)), rtol=1e-12)


def test_sums_of_parts_are_the_sums_of_the_whole():
    whole, parts = PanopticQuality(K), [PanopticQuality(K), PanopticQuality(K)]
    for seed in range(8):
        whole.add(*draw(seed))
        parts[seed % 2].add(*draw(seed))
    parts[0].merge(parts[1])
    np.testing.assert_allclose(sums_of(parts[0]), sums_of(whole), rtol=1e-12)


def test_nothing_counted_is_nan():
    assert all(np.isnan(value) for value in PanopticQuality(K).results(LABELS).values())


def test_images_without_segments():
    empty = np.zeros(SIZE, int)
    assert not sums_of(pq_stats(empty, [], empty, [], K)).any()
    true_ids, true_segments, *_ = draw(1)
    assert pq_stats(true_ids, true_segments, empty, [], K).fn.sum() == sum(not s["iscrowd"] for s in true_segments)


def test_integer_types_do_not_matter():
    true_ids, true_segments, ids, segments = draw(3)
    stats = pq_stats(true_ids.astype(np.uint32), true_segments, ids.astype(np.uint8), segments, K)
    np.testing.assert_array_equal(sums_of(stats), sums_of(pq_stats(*draw(3), K)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"truth": np.array([[1, 2]])}, r"ground truth has pixels of the ids \[2\]"),
        ({"predicted": np.array([[5, 9]])}, r"prediction has pixels of the ids \[9\]"),
        ({"predicted": np.array([[0, 0]])}, r"predicted segments \[5\] have no pixel"),
        ({"predicted": np.array([[5]])}, r"2x1 pixels, the prediction 1x1"),
        ({"predicted": np.array([[-1, 5]])}, "prediction has ids from -1 to 5"),
        ({"true_segments": [{"id": 1, "category_id": 0}] * 2}, "ground truth lists a segment id twice"),
        ({"segments": [{"id": 5, "category_id": K}]}, rf"prediction has segments of the categories \[{K}\]"),
        ({"segments": [{"id": 5, "category_id": 0}, {"id": ID_LIMIT, "category_id": 0}]}, f"to {ID_LIMIT}"),
    ],
)
def test_what_does_not_fit_is_named_and_leaves_no_trace(change, message):
    good = {
        "truth": np.array([[1, 0]]),
        "true_segments": [{"id": 1, "category_id": 0}],
        "predicted": np.array([[5, 5]]),
        "segments": [{"id": 5, "category_id": 0}],
    }
    with pytest.raises(ValueError, match=message):
        pq_stats(*{**good, **change}.values(), K)
    assert pq_stats(*good.values(), K).tp[0] == 1
