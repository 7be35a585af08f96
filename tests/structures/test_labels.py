import json

import pytest

from mask2former.structures import LabelSet, builtin_labels


def test_plain_values_round_trip():
    labels = LabelSet(("sky", "car"), thing_ids=(1,), colors=((1, 2, 3), (4, 5, 6)), ignore_label=0, dataset_ids=(7, 9))
    assert LabelSet.from_dict(json.loads(json.dumps(labels.to_dict()))) == labels
    assert labels.stuff_ids == (0,)


def test_difference_lists_both_sides():
    a, b = LabelSet(("sky", "car")), LabelSet(("sky", "tree", "road"))
    text = a.difference(b)
    assert "2 classes against 3" in text
    assert "'car'" in text
    assert "'tree', 'road'" in text
    assert a.difference(a) == ""
    assert "another order" in LabelSet(("car", "sky")).difference(a)


def test_difference_tells_other_things():
    a, b = (LabelSet(("sky", "car", "road"), thing_ids=ids) for ids in ((1,), (1, 2)))
    assert a.difference(b) == "same names, but other things; only in the first: []; only in the second: ['road']"
    assert a.difference(LabelSet(a.names)) == ""  # a semantic data set does not say which classes are things


def test_difference_of_many_classes_is_cut():
    a, b = LabelSet(tuple(map(str, range(30)))), LabelSet(("0",))
    assert "only in the first: ['1', '2'" in a.difference(b) and "and 19 more" in a.difference(b)


@pytest.mark.parametrize("count", [1, 19, 150])
def test_default_palette_tells_classes_apart(count):
    palette = LabelSet(tuple(map(str, range(count)))).palette()
    assert palette.shape == (count, 3)
    assert len({tuple(c) for c in palette.tolist()}) == count


def test_published_labels():
    labels = builtin_labels("coco_2017_train_panoptic")
    assert labels.num_classes == 133
    assert labels.thing_ids == tuple(range(80))
    assert builtin_labels("my_data") is None


def test_differing_numbers_are_told_apart_from_differing_classes():
    labels = LabelSet(("sky", "car"), dataset_ids=(3, 5))
    other = LabelSet(("sky", "car"), ignore_label=0)
    assert labels.difference(other) == ""
    assert labels.values_difference(labels) == ""
    told = labels.values_difference(other)
    assert "ignore value 255 against 0" in told and "'sky' is 3 against 0, 'car' is 5 against 1" in told
