"""The panoptic evaluator: drawn and real ground truth, saved predictions, threads, and mistakes in files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mask2former.data.catalog import MetadataCatalog, metadata_of
from mask2former.data.reading import read_mask, read_panoptic
from mask2former.evaluation import PanopticEvaluator, SemSegEvaluator, evaluate_panoptic_folder, panoptic_files
from mask2former.evaluation.panoptic_files import write_panoptic
from mask2former.structures import LabelSet
from mask2former.utils import comm
from mask2former.utils.errors import UserError


def records_of(annotations: Path, images: str, pngs: Path) -> tuple[list[dict], LabelSet]:
    """Records and labels of a COCO panoptic file; contiguous classes in the order of its categories."""
    content = json.loads(annotations.read_text())
    categories = content["categories"]
    labels = LabelSet(
        names=tuple(c["name"] for c in categories),
        thing_ids=tuple(i for i, c in enumerate(categories) if c["isthing"]),
        dataset_ids=tuple(c["id"] for c in categories),
    )
    contiguous = {own: i for i, own in enumerate(labels.dataset_ids)}
    return [
        {
            "file_name": f"{images}/{Path(entry['file_name']).stem}.jpg",
            "image_id": entry["image_id"],
            "pan_seg_file_name": str(pngs / entry["file_name"]),
            "segments_info": [{**s, "category_id": contiguous[s["category_id"]]} for s in entry["segments_info"]],
        }
        for entry in content["annotations"]
    ], labels


def truth_as_prediction(record: dict, moved: int = 0) -> dict:
    """What a model says that knows the ground truth, crowd left out, all of it shifted by `moved` pixels."""
    ids = np.roll(read_panoptic(record["pan_seg_file_name"]), moved, 1)
    segments = [s for s in record["segments_info"] if not s["iscrowd"]]
    renumbered = np.zeros_like(ids)
    for i, segment in enumerate(segments, start=1):
        renumbered[ids == segment["id"]] = i
    info = [{"id": i, "category_id": s["category_id"]} for i, s in enumerate(segments, start=1)]
    return {"panoptic_seg": (torch.from_numpy(renumbered), info)}


def evaluate(evaluator, records, moved=0):
    evaluator.reset()
    for record in records:
        evaluator.process([record], [truth_as_prediction(record, moved)])
    return evaluator.evaluate()["panoptic_seg"]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory, repo_dir) -> Path:
    """Six drawn validation images with all annotations."""
    namespace: dict = {"__name__": "make_shapes"}
    exec(compile((repo_dir / "datasets" / "make_shapes.py").read_text(), "make_shapes.py", "exec"), namespace)
    root = tmp_path_factory.mktemp("shapes") / "root"
    namespace["make"](root, train=0, valid=6, size=64)
    return root


@pytest.fixture
def drawn(shapes):
    return records_of(shapes / "annotations" / "panoptic_valid.json", "valid/images", shapes / "panoptic_valid")


def test_drawn_ground_truth_as_prediction_is_perfect(drawn):
    records, labels = drawn
    results = evaluate(PanopticEvaluator(labels), records)
    assert results["PQ"] == results["PQ_th"] == results["SQ_st"] == 100
    assert {v for v in results.values() if not np.isnan(v)} == {100.0}


def test_real_ground_truth_as_prediction_is_perfect(shared_dir):
    folder = shared_dir / "data" / "panoptic_sample"
    records, labels = records_of(folder / "panoptic_examples.json", "input_images", folder / "panoptic_examples")
    assert any(s["iscrowd"] for record in records for s in record["segments_info"])
    results = evaluate(PanopticEvaluator(labels), records)
    assert results["PQ"] == results["PQ_th"] == results["PQ_st"] == 100


def test_a_registered_name_stands_for_its_labels(drawn):
    _, labels = drawn
    MetadataCatalog.get("panoptic_look").set(**metadata_of(labels))
    try:
        evaluator = PanopticEvaluator("panoptic_look")
    finally:
        MetadataCatalog.remove("panoptic_look")
    assert evaluator.labels.names == labels.names
    with pytest.raises(UserError, match="panoptic_lok"):
        PanopticEvaluator("panoptic_lok")


def test_order_does_not_matter_and_reset_forgets(drawn):
    records, labels = drawn
    evaluator = PanopticEvaluator(labels)
    first = evaluate(evaluator, records, moved=4)
    assert 0 < first["PQ"] < 100
    np.testing.assert_allclose(list(evaluate(evaluator, records[::-1], moved=4).values()), list(first.values()))


def test_shards_add_up(drawn, monkeypatch):
    records, labels = drawn
    whole = evaluate(PanopticEvaluator(labels), records, moved=4)
    evaluators, shares = [PanopticEvaluator(labels) for _ in range(3)], []
    monkeypatch.setattr(comm, "all_gather", lambda share: shares.append(share) or [share])
    for evaluator, part in zip(evaluators, (records[:4], records[4:], [])):  # the third stays empty
        evaluate(evaluator, part, moved=4)
    monkeypatch.setattr(comm, "all_gather", lambda share: shares)
    for evaluator in evaluators:  # every rank reports the whole
        np.testing.assert_allclose(list(evaluator.evaluate()["panoptic_seg"].values()), list(whole.values()))


def test_saved_predictions_give_the_same_figures(drawn, shapes, tmp_path):
    records, labels = drawn
    results = evaluate(PanopticEvaluator(labels, tmp_path, save_predictions=True), records, moved=4)
    saved = json.loads((tmp_path / "predictions.json").read_text())["annotations"]
    assert {s["category_id"] for entry in saved for s in entry["segments_info"]} <= set(labels.dataset_ids)
    again = evaluate_panoptic_folder(
        shapes / "annotations" / "panoptic_valid.json",
        shapes / "panoptic_valid",
        tmp_path / "predictions.json",
        tmp_path / "panoptic",
    )
    assert again.keys() == results.keys()
    np.testing.assert_allclose(list(again.values()), list(results.values()))


def test_images_without_ground_truth_are_saved_all_the_same(drawn, tmp_path):
    records, labels = drawn
    evaluator = PanopticEvaluator(labels, tmp_path, save_predictions=True)
    bare = {k: v for k, v in records[0].items() if k != "pan_seg_file_name"}
    evaluator.process([bare], [truth_as_prediction(records[0])])
    assert evaluator.evaluate() == {}
    assert (tmp_path / "predictions.json").is_file()
    with pytest.raises(UserError, match=r"00000\.jpg has no ground truth"):
        PanopticEvaluator(labels).process([bare], [truth_as_prediction(records[0])])


def test_png_holds_every_id(tmp_path):
    ids = np.array([[0, 1, 255, 256], [65535, 65536, 2**24 - 1, 7]], dtype=np.int32)
    write_panoptic(ids, tmp_path / "ids.png")
    np.testing.assert_array_equal(read_panoptic(tmp_path / "ids.png"), ids)
    with pytest.raises(ValueError, match="16777216"):
        write_panoptic(ids + 1, tmp_path / "ids.png")


def test_semantic_truth_comes_from_the_panoptic_map(drawn, shapes):
    records, labels = drawn
    evaluator = SemSegEvaluator(labels)
    for record in records:
        truth = torch.from_numpy(read_mask(shapes / "valid" / "masks" / f"{Path(record['file_name']).stem}.png"))
        scores = torch.nn.functional.one_hot(truth.long(), labels.num_classes).permute(2, 0, 1).float()
        evaluator.process([record], [{"sem_seg": scores}])
    assert evaluator.evaluate()["sem_seg"]["pACC"] == 100
    assert evaluator.confusion.sum() == 6 * 64 * 64


def test_crowd_keeps_its_class_and_void_is_ignored_in_semantic_truth(tmp_path):
    write_panoptic(np.array([[0, 9, 9, 70000]]), tmp_path / "a.png")
    segments = [{"id": 9, "category_id": 1, "iscrowd": 1}, {"id": 70000, "category_id": 0, "iscrowd": 0}]
    record = {"file_name": "a.jpg", "pan_seg_file_name": str(tmp_path / "a.png"), "segments_info": segments}
    evaluator = SemSegEvaluator(LabelSet(("sky", "crowd"), ignore_label=200))
    evaluator.process([record], [{"sem_seg": torch.tensor([[[0, 0, 0, 1.0]], [[1.0, 1, 1, 0]]])}])
    np.testing.assert_array_equal(evaluator.confusion, [[1, 0], [0, 2]])
    record["segments_info"] = segments[:1]
    with pytest.raises(UserError, match=r"a\.png.*\[70000\]"):
        evaluator.process([record], [{"sem_seg": torch.zeros(2, 1, 4)}])


@pytest.mark.parametrize(
    ("png", "segments", "output", "wanted"),
    [
        (np.full((2, 3), 5), [1], torch.ones(2, 3), ["a.png", "b.jpg", "[5]"]),
        (np.ones((2, 3)), [1], torch.ones(2, 4), ["a.png", "3x2", "4x2"]),
        (None, [1], torch.ones(2, 3), ["a.png"]),
        (np.ones((2, 3)), [1], None, ["PANOPTIC_ON"]),
    ],
    ids=["unlisted id", "size", "missing file", "no result"],
)
def test_what_does_not_fit_is_named(tmp_path, png, segments, output, wanted):
    if png is not None:
        write_panoptic(png.astype(int), tmp_path / "a.png")
    info = [{"id": i, "category_id": 0, "iscrowd": 0} for i in segments]
    sample = {"file_name": "b.jpg", "pan_seg_file_name": str(tmp_path / "a.png"), "segments_info": info}
    result = {} if output is None else {"panoptic_seg": (output.int(), [{"id": 1, "category_id": 0}])}
    evaluator = PanopticEvaluator(LabelSet(("a",)))
    with pytest.raises(UserError) as error:  # from a thread, at the latest when the figures are asked for
        evaluator.process([sample], [result])
        evaluator.evaluate()
    for text in wanted:
        assert text in str(error.value)


def test_processes_share_the_work(shapes, monkeypatch):
    monkeypatch.setattr(panoptic_files, "CHUNK", 2)
    truth = shapes / "annotations" / "panoptic_valid.json", shapes / "panoptic_valid"
    one, two = (evaluate_panoptic_folder(*truth, *truth, processes=n) for n in (1, 2))
    np.testing.assert_array_equal(list(one.values()), list(two.values()))
    assert one["PQ"] == 100


def test_folders_that_do_not_belong_together_are_told(shapes, tmp_path):
    truth = shapes / "annotations" / "panoptic_valid.json", shapes / "panoptic_valid"
    content = json.loads(truth[0].read_text())
    content["annotations"].pop()
    (tmp_path / "fewer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"fewer\.json has no prediction for image 6"):
        evaluate_panoptic_folder(*truth, tmp_path / "fewer.json", truth[1])
    content = json.loads(truth[0].read_text())
    content["annotations"][2]["segments_info"][0]["category_id"] = 4
    (tmp_path / "strange.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"00002\.png have the category ids \[4\]"):
        evaluate_panoptic_folder(*truth, tmp_path / "strange.json", truth[1])
    Image.new("RGB", (64, 64), (1, 2, 3)).save(tmp_path / "00000.png")
    with pytest.raises(UserError, match=rf"00000\.png.*\[{1 + 2 * 256 + 3 * 65536}\]"):
        evaluate_panoptic_folder(*truth, truth[0], tmp_path)
    (tmp_path / "unlisted.json").write_text('{"annotations": [{"image_id": 1, "file_name": "1.png"}]}')
    with pytest.raises(UserError, match=r"unlisted.json: entry 0 .* of annotations has no \['segments_info'\]"):
        evaluate_panoptic_folder(*truth, tmp_path / "unlisted.json", truth[1])
