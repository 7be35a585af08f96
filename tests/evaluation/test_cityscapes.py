"""Cityscapes' scripts on a small tree of their kind, against figures worked out by hand."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from mask2former.data import MetadataCatalog
from mask2former.evaluation import CityscapesInstanceEvaluator, CityscapesSemSegEvaluator
from mask2former.structures import Instances, LabelSet, builtin_labels
from mask2former.utils.errors import UserError

pytest.importorskip("cityscapesscripts")

LABELS = builtin_labels("cityscapes_fine_panoptic_val")
K = LABELS.num_classes
SIZE = 40, 60
ROAD, SKY, PERSON, CAR = (LABELS.names.index(name) for name in ("road", "sky", "person", "car"))
OWN_IDS = {ROAD: 7, SKY: 23, PERSON: 24, CAR: 26}


@pytest.fixture
def tree(tmp_path):
    """Folder of the ground truth, and inputs of two images of two cities: sky above, road below, two cars, a group."""
    inputs = []
    for city in ("aachen", "bremen"):
        name = f"{city}_000001_000019"
        folder = tmp_path / "gtFine" / city
        folder.mkdir(parents=True)
        Image.fromarray(label_map().astype(np.uint8)).save(folder / f"{name}_gtFine_labelIds.png")
        Image.fromarray(instance_map()).save(folder / f"{name}_gtFine_instanceIds.png")
        inputs.append({"file_name": f"leftImg8bit/val/{city}/{name}_leftImg8bit.png", "image_id": name})
    return tmp_path / "gtFine", inputs


def label_map():
    ids = np.full(SIZE, OWN_IDS[ROAD])
    ids[:20] = OWN_IDS[SKY]
    ids[20:32, 0:20] = ids[20:32, 30:45] = ids[34:, 40:] = OWN_IDS[CAR]
    ids[:, 55:] = 4  # not evaluated
    return ids


def instance_map():
    ids = label_map().astype(np.uint16)
    ids[20:32, 0:20], ids[20:32, 30:45] = 26000, 26001  # the third stays a group of cars: 26
    return ids


def scores_of(classes):
    return torch.nn.functional.one_hot(torch.from_numpy(classes), K).permute(2, 0, 1).float()


def classes_of(ids):
    classes = np.zeros(SIZE, np.int64)
    for k, own_id in OWN_IDS.items():
        classes[ids == own_id] = k
    return classes


def semantic(gt_dir, inputs, output, **options):
    evaluator = CityscapesSemSegEvaluator(LABELS, gt_dir=gt_dir, **options)
    evaluator.process(inputs, [output] * len(inputs))
    return evaluator.evaluate()


def instance(gt_dir, inputs, found, labels=LABELS, **options):
    masks, scores, classes = zip(*found)
    fields = {"scores": torch.tensor(scores), "pred_classes": torch.tensor(classes)}
    output = {"instances": Instances(SIZE, pred_masks=torch.from_numpy(np.stack(masks)), **fields)}
    evaluator = CityscapesInstanceEvaluator(labels, gt_dir=gt_dir, **options)
    evaluator.process(inputs, [output] * len(inputs))
    return evaluator.evaluate()


def test_semantic_ground_truth_fed_back(tree):
    results = semantic(*tree, {"sem_seg": scores_of(classes_of(label_map()))})
    assert list(results) == ["sem_seg"]
    figures = results["sem_seg"]
    for name in ("IoU", "iIoU", "IoU_sup", "iIoU_sup", "IoU-road", "IoU-sky", "IoU-car"):
        assert figures[name] == pytest.approx(100), name
    assert np.isnan(figures["IoU-train"])
    assert {name for name in figures if name.startswith("IoU-")} == {f"IoU-{name}" for name in LABELS.names}


def test_semantic_error(tree):
    classes = classes_of(label_map())
    classes[:10] = ROAD  # half of the sky; what lies in the part that is not evaluated does not count
    figures = semantic(*tree, {"sem_seg": scores_of(classes)})["sem_seg"]
    assert figures["IoU-sky"] == pytest.approx(50)
    road = (label_map() == OWN_IDS[ROAD]).sum()
    assert figures["IoU-road"] == pytest.approx(100 * road / (road + 10 * 55))
    assert figures["IoU"] == pytest.approx(np.mean([50, figures["IoU-road"], 100]))


def test_instances_fed_back(tree):
    ids = instance_map()
    found = [(ids == 26000, 0.9, CAR), (ids == 26001, 0.8, CAR), (ids == 26, 0.99, CAR), (ids == 23, 0.9, SKY)]
    figures = instance(*tree, found)["segm"]  # the group is neither to be found nor wrong, and sky is no thing
    assert figures["AP"] == figures["AP50"] == figures["AP-car"] == pytest.approx(100)
    assert np.isnan(figures["AP-person"])
    assert len(figures) == 2 + 8


def test_instances_missed_and_wrong(tree):
    ids = instance_map()
    loose = ids == 26001
    loose[20:29, 30:45] = False  # IoU 1/4
    figures = instance(*tree, [(ids == 26000, 0.5, CAR), (loose, 0.9, CAR), (ids == 7, 0.3, PERSON)])["segm"]
    assert 0 < figures["AP50"] < 50
    labels = builtin_labels("cityscapes_fine_instance_seg_val")
    car = labels.names.index("car")
    same = instance(*tree, [(ids == 26000, 0.5, car), (loose, 0.9, car)], labels)["segm"]
    assert same["AP-car"] == figures["AP-car"]


def test_nothing_is_left_behind(tree, tmp_path, monkeypatch):
    gt_dir, inputs = tree
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    instance(gt_dir, inputs, [(instance_map() == 26000, 0.5, CAR)], output_dir=tmp_path / "out")
    semantic(gt_dir, inputs, {"sem_seg": torch.rand(K, *SIZE)}, output_dir=tmp_path / "out")
    assert not [*(tmp_path / "work").iterdir(), *(tmp_path / "out").iterdir()]
    assert not [*gt_dir.rglob("*.json")]


def test_saved_predictions(tree, tmp_path):
    gt_dir, inputs = tree
    for path in gt_dir.rglob("*.png"):  # as for the test set
        path.unlink()
    options = {"output_dir": tmp_path / "out", "save_predictions": True}
    ids = label_map()
    assert semantic(gt_dir, inputs, {"sem_seg": scores_of(classes_of(ids))}, **options) == {}
    with Image.open(tmp_path / "out" / "cityscapes_sem_seg" / "aachen_000001_000019_pred.png") as image:
        np.testing.assert_array_equal(np.asarray(image)[:, :55], ids[:, :55])
    assert instance(gt_dir, inputs, [(ids == 7, 0.25, SKY), (ids == 26, 0.5, CAR)], **options) == {}
    folder = tmp_path / "out" / "cityscapes_instances"
    (line,) = (folder / "bremen_000001_000019_pred.txt").read_text().splitlines()
    file, own_id, score = line.split(" ")
    assert (own_id, float(score)) == ("26", 0.5)
    with Image.open(folder / file) as image:
        np.testing.assert_array_equal(np.asarray(image.convert("L")) > 0, ids == 26)


def test_missing_ground_truth_is_named(tree):
    gt_dir, inputs = tree
    inputs[0]["file_name"] = "val/ulm/ulm_000000_000019_leftImg8bit.png"
    with pytest.raises(UserError, match=r"ulm/ulm_000000_000019_gtFine_labelIds\.png does not exist.*gtFine_trainv"):
        semantic(gt_dir, inputs, {"sem_seg": torch.rand(K, *SIZE)})


def test_what_the_scripts_refuse_is_raised(tree):
    gt_dir, inputs = tree
    with pytest.raises(UserError, match="widths of"):
        semantic(gt_dir, inputs, {"sem_seg": torch.rand(K, 40, 50)})


def test_folder_of_the_ground_truth_comes_from_the_metadata(tree):
    gt_dir, _ = tree
    metadata = MetadataCatalog.get("cityscapes_look")
    metadata.set(evaluator_type="cityscapes_sem_seg", stuff_classes=[*LABELS.names])
    try:
        with pytest.raises(UserError, match="gt_dir"):
            CityscapesSemSegEvaluator("cityscapes_look")
        metadata.set(gt_dir=str(gt_dir))
        assert CityscapesSemSegEvaluator("cityscapes_look").gt_dir == gt_dir
    finally:
        MetadataCatalog.remove("cityscapes_look")


def test_other_classes_are_refused():
    with pytest.raises(UserError, match=r"no classes \['tram'\]"):
        CityscapesSemSegEvaluator(LabelSet(("road", "tram")), gt_dir=".")


def test_the_package_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "cityscapesscripts", None)
    monkeypatch.setitem(sys.modules, "cityscapesscripts.helpers.labels", None)
    with pytest.raises(UserError, match=r"pip install \"mask2former\[cityscapes\]\""):
        CityscapesSemSegEvaluator(LABELS, gt_dir=".")


@pytest.mark.parametrize(
    ("evaluator", "flag"), [(CityscapesSemSegEvaluator, "SEMANTIC_ON"), (CityscapesInstanceEvaluator, "INSTANCE_ON")]
)
def test_results_that_are_off(tree, evaluator, flag):
    gt_dir, inputs = tree
    with pytest.raises(UserError, match=flag):
        evaluator(LABELS, gt_dir=gt_dir).process(inputs[:1], [{}])
