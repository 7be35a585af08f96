"""The table of evaluators."""

from types import SimpleNamespace

import pytest

from mask2former.data.catalog import MetadataCatalog
from mask2former.evaluation import EVALUATORS, SemSegEvaluator, build_evaluators
from mask2former.utils.errors import UserError


def recipe(semantic=True, instance=False, panoptic=False, save=False):
    test = SimpleNamespace(SEMANTIC_ON=semantic, INSTANCE_ON=instance, PANOPTIC_ON=panoptic)
    return SimpleNamespace(
        MODEL=SimpleNamespace(MASK_FORMER=SimpleNamespace(TEST=test)), TEST=SimpleNamespace(SAVE_PREDICTIONS=save)
    )


@pytest.fixture
def name():
    MetadataCatalog.get("look_test").set(evaluator_type="sem_seg", stuff_classes=["a", "b"], ignore_label=9)
    yield "look_test"
    MetadataCatalog.remove("look_test")


def test_semantic(name, tmp_path):
    (evaluator,) = build_evaluators(recipe(save=True), name, tmp_path)
    assert isinstance(evaluator, SemSegEvaluator)
    assert evaluator.labels.names == ("a", "b")
    assert evaluator.labels.ignore_label == 9
    assert evaluator.predictions_path == tmp_path / "sem_seg_predictions.json"


def test_predictions_are_saved_only_on_request(name, tmp_path):
    (evaluator,) = build_evaluators(recipe(), name, tmp_path)
    assert evaluator.predictions_path is None


@pytest.mark.parametrize(
    ("kind", "flags", "tasks"),
    [
        ("coco", {"instance": True}, ["Instance"]),
        ("coco_panoptic_seg", {"panoptic": True, "semantic": False}, ["Panoptic"]),
        ("ade20k_panoptic_seg", {"instance": True, "panoptic": True}, ["Panoptic", "Instance", "SemSeg"]),
        ("mapillary_vistas_panoptic_seg", {"panoptic": True}, ["Panoptic", "SemSeg"]),
        (
            "cityscapes_panoptic_seg",
            {"instance": True, "panoptic": True},
            ["Panoptic", "CityscapesSemSeg", "CityscapesInstance"],
        ),
        ("cityscapes_instance", {"instance": True}, ["CityscapesInstance"]),
        ("cityscapes_sem_seg", {}, ["CityscapesSemSeg"]),
    ],
)
def test_evaluators_follow_the_results_that_are_on(name, tmp_path, kind, flags, tasks):
    names = ["road", "car"]
    MetadataCatalog.get(name).set(
        evaluator_type=kind,
        stuff_classes=names,
        thing_classes=names,
        thing_dataset_id_to_contiguous_id={26: 1},
        gt_dir=str(tmp_path),
    )
    made = build_evaluators(recipe(**flags), name, tmp_path)
    assert [type(evaluator).__name__ for evaluator in made] == [f"{task}Evaluator" for task in tasks]


def test_unknown_type_is_named_with_the_nearest(name, tmp_path):
    MetadataCatalog.get(name).set(evaluator_type="sem_sec")
    with pytest.raises(UserError, match=r"look_test.*sem_sec.*Did you mean 'sem_seg'"):
        build_evaluators(recipe(), name, tmp_path)


def test_a_data_set_without_type(tmp_path):
    with pytest.raises(UserError, match="does not say how it is evaluated"):
        build_evaluators(recipe(), "look_test_bare", tmp_path)


def test_a_recipe_that_turns_the_needed_result_off(name, tmp_path):
    with pytest.raises(UserError, match=r"MODEL\.MASK_FORMER\.TEST\.SEMANTIC_ON"):
        build_evaluators(recipe(semantic=False), name, tmp_path)


def test_users_add_to_the_table(name, tmp_path, monkeypatch):
    monkeypatch.setitem(EVALUATORS, "mine", lambda cfg, name, output_dir: [name, output_dir])
    MetadataCatalog.get(name).set(evaluator_type="mine")
    assert build_evaluators(recipe(), name, tmp_path) == [name, tmp_path]
