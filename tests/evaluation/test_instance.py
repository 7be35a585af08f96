"""AP of instances: pycocotools' figures, ground truth fed back, and the places that ground truth comes from."""

import contextlib
import io
import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mask2former.data import DatasetCatalog, MetadataCatalog
from mask2former.data.datasets.coco import register_coco_instances
from mask2former.data.reading import read_panoptic
from mask2former.evaluation import InstanceEvaluator
from mask2former.structures import Instances, LabelSet
from mask2former.utils.errors import UserError

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def pycocotools_figures(coco, entries, task):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = json.loads(json.dumps(coco))
        truth.createIndex()
        left_out = "bbox" if task == "segm" else "segmentation"
        found = truth.loadRes([{k: v for k, v in entry.items() if k != left_out} for entry in entries])
        evaluation = COCOeval(truth, found, task)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    figures = {name: value * 100 if value >= 0 else np.nan for name, value in zip(FIGURES, evaluation.stats)}
    for k, category in enumerate(evaluation.params.catIds):
        precision = evaluation.eval["precision"][:, :, k, 0, -1]
        mean = precision[precision > -1].mean() if (precision > -1).any() else np.nan
        figures[f"AP-{truth.cats[category]['name']}"] = 100 * mean
    return figures


def evaluate(evaluator, records, outputs):
    evaluator.reset()
    for record, output in zip(records, outputs, strict=True):
        evaluator.process([record], [output])
    return evaluator.evaluate()


@pytest.fixture
def json_file(drawn, tmp_path):
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(drawn.coco))
    return path


def saved(folder):
    return json.loads((folder / "coco_instances_results.json").read_text())


def test_equals_pycocotools(drawn, json_file, tmp_path):
    evaluator = InstanceEvaluator(drawn.labels, tmp_path, json_file=json_file, save_predictions=True)
    results = evaluate(evaluator, drawn.records, drawn.outputs)
    assert list(results) == ["segm", "bbox"]
    for task, figures in results.items():
        expected = pycocotools_figures(drawn.coco, saved(tmp_path), task)
        assert set(figures) == set(expected)
        for name, value in expected.items():
            assert figures[name] == pytest.approx(value, abs=1e-9, nan_ok=True), (task, name)
        assert 10 < figures["AP"] < 90


def test_ground_truth_fed_back_is_perfect(drawn, json_file):
    results = evaluate(InstanceEvaluator(drawn.labels, json_file=json_file), drawn.records, drawn.perfect())
    for figures in results.values():
        assert {name: v for name, v in figures.items() if name.startswith("AP") and v != pytest.approx(100)} == {}


def test_records_serve_as_well_as_the_file(drawn, json_file):
    expected = evaluate(InstanceEvaluator(drawn.labels, json_file=json_file), drawn.records, drawn.outputs)
    np.testing.assert_equal(evaluate(InstanceEvaluator(drawn.labels), drawn.records, drawn.outputs), expected)
    for record in drawn.records:  # other forms of the same
        for annotation in record["annotations"]:
            annotation["segmentation"] = drawn.masks[annotation["id"]]
            x, y, w, h = annotation["bbox"]
            annotation.update(bbox=[x, y, x + w, y + h], bbox_mode=0)
    np.testing.assert_equal(evaluate(InstanceEvaluator(drawn.labels), drawn.records, drawn.outputs), expected)


def test_order_of_images_and_batches_does_not_matter(drawn):
    evaluator = InstanceEvaluator(drawn.labels)
    expected = evaluate(evaluator, drawn.records, drawn.outputs)
    evaluator.reset()
    evaluator.process(drawn.records[::-1], drawn.outputs[::-1])
    evaluator.process(drawn.records[:2], drawn.outputs[:2])  # as a sampler that pads its share
    np.testing.assert_equal(evaluator.evaluate(), expected)


def test_image_ids_may_be_text(drawn, json_file):
    expected = evaluate(InstanceEvaluator(drawn.labels, json_file=json_file), drawn.records, drawn.outputs)
    for entry in (*drawn.records, *drawn.coco["annotations"]):
        entry["image_id"] = f"image {entry['image_id']:02d}"
    for image in drawn.coco["images"]:
        image["id"] = f"image {image['id']:02d}"
    json_file.write_text(json.dumps(drawn.coco))
    evaluator = InstanceEvaluator(drawn.labels, json_file=json_file)
    np.testing.assert_equal(evaluate(evaluator, drawn.records, drawn.outputs), expected)


def test_annotation_id_0_is_matched_like_any_other(drawn, json_file):
    for annotation in drawn.coco["annotations"]:
        annotation["id"] -= 1
    json_file.write_text(json.dumps(drawn.coco))
    results = evaluate(InstanceEvaluator(drawn.labels, json_file=json_file), drawn.records, drawn.perfect())
    assert results["segm"]["AP"] == pytest.approx(100)


def test_a_part_of_the_images_is_evaluated_alone(drawn, json_file, caplog):
    evaluator = InstanceEvaluator(drawn.labels, json_file=json_file)
    with caplog.at_level(logging.INFO):
        results = evaluate(evaluator, drawn.records[:4], drawn.outputs[:4])
    assert "Of the 9 images" in caplog.text
    assert "the 4 evaluated" in caplog.text
    alone = InstanceEvaluator(drawn.labels)
    np.testing.assert_equal(results, evaluate(alone, drawn.records[:4], drawn.outputs[:4]))


def test_stuff_is_dropped(drawn):
    expected = evaluate(InstanceEvaluator(drawn.labels), drawn.records, drawn.outputs)
    for output in drawn.outputs:
        found = output["instances"]
        output["instances"] = found[found.pred_classes != 1]
    np.testing.assert_equal(evaluate(InstanceEvaluator(drawn.labels), drawn.records, drawn.outputs), expected)
    assert "AP-grass" not in expected["segm"]


def test_given_boxes_count(drawn):
    expected = evaluate(InstanceEvaluator(drawn.labels), drawn.records, drawn.outputs)
    for output in drawn.outputs:
        output["instances"].pred_boxes = torch.zeros(len(output["instances"]), 4)
    results = evaluate(InstanceEvaluator(drawn.labels), drawn.records, drawn.outputs)
    np.testing.assert_equal(results["segm"], expected["segm"])
    assert results["bbox"]["AP"] == 0


def test_no_prediction_at_all_is_zero(drawn):
    nothing = [{"instances": output["instances"][:0]} for output in drawn.outputs]
    results = evaluate(InstanceEvaluator(drawn.labels), drawn.records, nothing)
    assert results["segm"]["AP"] == results["bbox"]["AP"] == 0


@pytest.mark.parametrize("shape", [{}, {"segmentation": []}, {"segmentation": None}], ids=["none", "empty", "null"])
def test_annotations_without_a_mask_do_not_count(drawn, json_file, shape):
    """Neither those of a file, nor those of records, which a user's own function may have made."""
    expected = evaluate(InstanceEvaluator(drawn.labels), drawn.records, drawn.outputs)
    record = drawn.records[0]
    without = {"id": 10**6, "iscrowd": 0, "area": 9.0, "bbox": [0.0, 0.0, 3.0, 3.0], **shape}
    record["annotations"].append({**without, "category_id": 0})
    drawn.coco["annotations"].append({**without, "category_id": 7, "image_id": record["image_id"]})
    json_file.write_text(json.dumps(drawn.coco))
    for evaluator in (InstanceEvaluator(drawn.labels), InstanceEvaluator(drawn.labels, json_file=json_file)):
        np.testing.assert_equal(evaluate(evaluator, drawn.records, drawn.outputs), expected)


def test_scores_of_a_diverged_model_are_told(drawn):
    record, output = next((r, o) for r, o in zip(drawn.records, drawn.outputs) if len(o["instances"]))
    output["instances"].scores[0] = float("nan")
    with pytest.raises(UserError, match=rf"{record['file_name']}.*nan.*SOLVER.BASE_LR"):
        InstanceEvaluator(drawn.labels).process([record], [output])


def test_things_of_panoptic_maps_serve_as_ground_truth(tmp_path):
    labels = LabelSet(("thing", "stuff"), thing_ids=(0,))
    ids = np.zeros((20, 30), np.uint8)
    ids[2:9, 3:12], ids[10:, 5:20], ids[:, 25:] = 1, 2, 3
    Image.fromarray(ids).save(tmp_path / "ids.png")
    segments = [{"id": 1, "category_id": 0}, {"id": 2, "category_id": 1}, {"id": 3, "category_id": 0, "iscrowd": 1}]
    record = {"file_name": "a.jpg", "image_id": "a", "pan_seg_file_name": str(tmp_path / "ids.png")}
    record["segments_info"] = segments
    masks = torch.from_numpy(np.stack([ids == 3, ids == 1]))  # what lies in a crowd does not count as wrong
    fields = {"scores": torch.tensor([0.9, 0.5]), "pred_classes": torch.tensor([0, 0])}
    output = {"instances": Instances((20, 30), pred_masks=masks, **fields)}
    results = evaluate(InstanceEvaluator(labels), [record], [output])
    assert results["segm"]["AP"] == results["bbox"]["AP"] == pytest.approx(100)
    assert set(results["segm"]) == {*FIGURES, "AP-thing"}


def test_file_for_the_server(drawn, tmp_path):
    evaluate(InstanceEvaluator(drawn.labels, tmp_path, save_predictions=True), drawn.records, drawn.outputs)
    entries = saved(tmp_path)
    assert set(entries[0]) == {"image_id", "category_id", "segmentation", "score", "bbox"}
    assert {e["category_id"] for e in entries} == {7, 3, 12}
    kept = sum(int((o["instances"].pred_classes != 1).sum()) for o in drawn.outputs)
    assert len(entries) == kept
    evaluate(InstanceEvaluator(drawn.labels, tmp_path / "other"), drawn.records, drawn.outputs)
    assert not (tmp_path / "other").exists()


def test_a_set_without_annotations_gets_its_file_alone(drawn, tmp_path, caplog):
    path = tmp_path / "image_info_test.json"
    path.write_text(json.dumps({key: drawn.coco[key] for key in ("images", "categories")}))
    evaluator = InstanceEvaluator(drawn.labels, tmp_path, json_file=path)
    assert evaluate(evaluator, drawn.records, drawn.outputs) == {}
    assert "No ground truth object: no AP of 9 images" in caplog.text
    assert saved(tmp_path)


def test_registered_data_set(drawn, json_file, tmp_path):
    for image in drawn.coco["images"]:
        Image.new("RGB", (image["width"], image["height"])).save(tmp_path / image["file_name"])
    register_coco_instances("instances_here", {}, json_file, tmp_path)
    try:
        evaluator = InstanceEvaluator("instances_here")
        assert evaluator.category_ids == {0: 3, 1: 7, 2: 12}  # the classes of the file, by id
        records = DatasetCatalog.get("instances_here")
        renumbered = torch.tensor([1, -1, 0, 2])
        for output in drawn.outputs:
            output["instances"].pred_classes = renumbered[output["instances"].pred_classes]
        results = evaluate(evaluator, records, drawn.outputs)
        json_file.unlink()
        assert InstanceEvaluator("instances_here").json_file is None
        np.testing.assert_equal(evaluate(InstanceEvaluator("instances_here"), records, drawn.outputs), results)
    finally:
        DatasetCatalog.remove("instances_here")
        MetadataCatalog.remove("instances_here")


def broken(coco, key):
    image, annotation = coco["images"][0], coco["annotations"][0]
    if key == "image":
        image["id"] = annotation["image_id"] = 999
        coco["annotations"] = [a for a in coco["annotations"] if a["image_id"] == 999]
    elif key == "category":
        coco["categories"] = coco["categories"][1:]
    elif key == "size":
        image["height"] += 1
    else:
        annotation["segmentation"] = {"size": [3, 4], "counts": "000"}


@pytest.mark.parametrize(
    ("key", "wanted"),
    [
        ("image", ["instances.json", "31", "999", "json_file"]),
        ("category", ["instances.json", "7", "thing_dataset_id_to_contiguous_id"]),
        ("size", ["image 31", "width x height"]),
        ("segmentation", ["annotation 1", "4x3 pixels"]),
    ],
)
def test_a_file_that_does_not_fit_is_refused(drawn, json_file, key, wanted):
    broken(drawn.coco, key)
    json_file.write_text(json.dumps(drawn.coco))
    with pytest.raises(UserError) as error:
        evaluate(InstanceEvaluator(drawn.labels, json_file=json_file), drawn.records, drawn.outputs)
    for text in wanted:
        assert text in str(error.value)


def test_what_is_missing_is_named(drawn):
    evaluator = InstanceEvaluator(drawn.labels)
    with pytest.raises(UserError, match="INSTANCE_ON"):
        evaluator.process(drawn.records[:1], [{}])
    bare = {"file_name": "a.jpg", "image_id": 1}
    with pytest.raises(UserError, match=r"a\.jpg has no ground truth of instances"):
        evaluator.process([bare], drawn.outputs[:1])
    drawn.records[0]["annotations"][0]["segmentation"] = {"size": [3, 4], "counts": "000"}
    with pytest.raises(UserError, match=r"Annotation 1 of 31\.jpg is 4x3 pixels"):
        evaluator.process(drawn.records[:1], drawn.outputs[:1])


def test_coco_tiny_fed_back_is_perfect(shared_dir):
    """Crowd regions are no objects to find: predictions leave them out, and what lies in them is not counted."""
    path = shared_dir / "data" / "coco_tiny" / "annotations" / "instances_val2017.json"
    truth = COCO()
    truth.dataset = coco = json.loads(path.read_text())
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
    ids = sorted(truth.cats)
    labels = LabelSet(tuple(truth.cats[i]["name"] for i in ids), tuple(range(len(ids))), dataset_ids=tuple(ids))
    evaluator = InstanceEvaluator(labels, json_file=path)
    for image in coco["images"]:
        size, found = (image["height"], image["width"]), [a for a in truth.imgToAnns[image["id"]] if not a["iscrowd"]]
        masks = [truth.annToMask(a) for a in found]
        fields = {"pred_masks": torch.from_numpy(np.stack(masks)) if masks else torch.zeros(0, *size)}
        fields["pred_boxes"] = torch.tensor([a["bbox"] for a in found]).reshape(-1, 4).double()
        fields["pred_boxes"][:, 2:] += fields["pred_boxes"][:, :2]
        fields["pred_classes"] = torch.tensor([ids.index(a["category_id"]) for a in found], dtype=torch.int64)
        record = {"image_id": image["id"], "file_name": image["file_name"]}
        evaluator.process([record], [{"instances": Instances(size, scores=torch.ones(len(found)), **fields)}])
    for figures in evaluator.evaluate().values():
        values = [value for name, value in figures.items() if name.startswith("AP") and not np.isnan(value)]
        assert values == pytest.approx([100] * len(values))


def test_panoptic_sample_fed_back_is_perfect(shared_dir):
    """Things of real panoptic maps; crowd segments are no objects to find."""
    folder = shared_dir / "data" / "panoptic_sample"
    content = json.loads((folder / "panoptic_examples.json").read_text())
    ids = [category["id"] for category in content["categories"]]
    things = tuple(k for k, category in enumerate(content["categories"]) if category["isthing"])
    labels = LabelSet(tuple(category["name"] for category in content["categories"]), things, dataset_ids=tuple(ids))
    evaluator = InstanceEvaluator(labels)
    for image in content["annotations"]:
        path = folder / "panoptic_examples" / image["file_name"]
        segments = [{**s, "category_id": ids.index(s["category_id"])} for s in image["segments_info"]]
        numbers = torch.from_numpy(read_panoptic(path))
        found = [s for s in segments if s["category_id"] in things and not s["iscrowd"]]
        fields = {"pred_masks": torch.stack([numbers == s["id"] for s in found])}
        fields["pred_classes"] = torch.tensor([s["category_id"] for s in found])
        record = {"image_id": image["image_id"], "file_name": image["file_name"], "segments_info": segments}
        output = {"instances": Instances(tuple(numbers.shape), scores=torch.ones(len(found)), **fields)}
        evaluator.process([{**record, "pan_seg_file_name": str(path)}], [output])
    results = evaluator.evaluate()
    assert results["segm"]["AP"] == pytest.approx(100)
    assert results["segm"]["APs"] == pytest.approx(100)
