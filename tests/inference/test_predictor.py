"""The predictor: from config or checkpoint to results at the image's size, with clear refusals."""

import logging

import numpy as np
import pytest
import torch
from torch import nn

from mask2former.config import CfgNode, get_cfg, load_cfg
from mask2former.data import DatasetCatalog, MetadataCatalog
from mask2former.inference import Predictor, checkpoint_config
from mask2former.modeling import META_ARCH
from mask2former.structures import LabelSet
from mask2former.utils.errors import UserError

LABELS = LabelSet(("dark", "bright"), thing_ids=(1,), colors=((0, 0, 255), (255, 255, 0)))
IMAGE = np.zeros((30, 50, 3), np.uint8)


class Tiny(nn.Module):
    """Scores each pixel by its first input channel, and remembers what it was given."""

    def __init__(self, num_classes, thing_ids):
        super().__init__()
        self.head = nn.Conv2d(3, num_classes, 1)
        self.thing_ids = thing_ids

    def forward(self, inputs):
        self.inputs = inputs
        scores = self.head(inputs[0]["image"][None].float())
        size = (inputs[0]["height"], inputs[0]["width"])
        return [{"sem_seg": nn.functional.interpolate(scores, size=size)[0]}]


@pytest.fixture(autouse=True)
def tiny_architecture(monkeypatch):
    monkeypatch.setitem(
        META_ARCH._obj_map, "Tiny", lambda cfg, labels: Tiny(cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, labels.thing_ids)
    )


@pytest.fixture
def cfg():
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "Tiny"
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 2
    cfg.INPUT.MIN_SIZE_TEST = 60
    cfg.INPUT.FORMAT = "RGB"
    return cfg


def save(path, cfg, labels=LABELS, **changes):
    model = Tiny(cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, ())
    contents = {
        "model": model.state_dict(),
        "labels": labels.to_dict(),
        "normalization": {
            "mean": list(cfg.MODEL.PIXEL_MEAN),
            "std": list(cfg.MODEL.PIXEL_STD),
            "format": cfg.INPUT.FORMAT,
        },
        "config": cfg.dump(),
    }
    contents.update(changes)
    torch.save({key: value for key, value in contents.items() if value is not None}, path)
    return model


def warnings_of(monkeypatch):
    said = []
    logger = logging.getLogger("mask2former.inference.predictor")
    monkeypatch.setattr(logger, "warning", lambda text, *args: said.append(text % args))
    return said


def test_a_checkpoint_is_enough(tmp_path, cfg):
    model = save(tmp_path / "model.pth", cfg)
    predictor = Predictor(tmp_path / "model.pth")
    assert predictor.labels == LABELS
    assert predictor.model.thing_ids == (1,)
    assert not predictor.model.training
    assert torch.equal(predictor.model.head.weight, model.head.weight)
    assert predictor.cfg.MODEL.WEIGHTS == str(tmp_path / "model.pth")
    result = predictor(IMAGE)["sem_seg"]
    assert result.shape == (2, 30, 50)
    assert not result.requires_grad


def test_a_config_names_the_weights_and_stays_as_it_is(tmp_path, cfg):
    save(tmp_path / "model.pth", cfg)
    cfg.MODEL.WEIGHTS = str(tmp_path / "model.pth")
    cfg.MODEL.DEVICE = "cuda"
    cfg.freeze()
    before = cfg.dump()
    predictor = Predictor(cfg, device="cpu")
    assert cfg.dump() == before
    assert predictor.cfg.MODEL.DEVICE == "cpu"
    assert predictor.labels == LABELS


def test_without_cuda_the_cpu_is_used(tmp_path, cfg, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cfg.MODEL.DEVICE = "cuda"
    save(tmp_path / "model.pth", cfg)
    assert Predictor(tmp_path / "model.pth").cfg.MODEL.DEVICE == "cpu"


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_images_are_prepared_as_the_test_mapper_does(tmp_path, cfg, order):
    cfg.INPUT.FORMAT = order
    save(tmp_path / "model.pth", cfg)
    predictor = Predictor(tmp_path / "model.pth")
    image = IMAGE.copy()
    image[..., 0] = 200
    image.flags.writeable = False
    predictor(image)
    (given,) = predictor.model.inputs
    assert given["image"].shape == (3, 60, 100)
    assert given["image"].dtype == torch.uint8
    assert (given["height"], given["width"]) == (30, 50)
    assert given["image"].float().mean((1, 2)).argmax() == order.index("R")


@pytest.mark.parametrize(
    "image",
    [
        IMAGE.astype(np.float32),
        IMAGE[..., 0],
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((3, 40, 40), np.uint8),
        torch.zeros(4, 4, 3, dtype=torch.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
    ids=["float", "grey", "RGBA", "channels first", "tensor", "empty"],
)
def test_other_images_are_refused(tmp_path, cfg, image):
    save(tmp_path / "model.pth", cfg)
    with pytest.raises(UserError, match=r"Predictor (takes an RGB image|got an image without pixels)"):
        Predictor(tmp_path / "model.pth")(image)


def test_weights_without_config_are_refused(tmp_path, cfg):
    save(tmp_path / "model.pth", cfg, config=None)
    with pytest.raises(UserError, match=r"model\.pth carries weights only.*--config-file"):
        Predictor(tmp_path / "model.pth")


def test_a_config_with_python_tags_is_refused(tmp_path, cfg):
    save(tmp_path / "model.pth", cfg, config="MODEL: !!python/object/apply:os.system ['true']")
    with pytest.raises(UserError, match="python"):
        Predictor(tmp_path / "model.pth")


def test_weights_that_do_not_fill_the_model_are_refused(tmp_path, cfg):
    weights = Tiny(2, ()).state_dict()
    del weights["head.bias"]
    save(tmp_path / "model.pth", cfg, model=weights)
    with pytest.raises(UserError, match=r"head\.bias"):
        Predictor(tmp_path / "model.pth")


def test_labels_that_do_not_fit_the_model_are_refused(tmp_path, cfg):
    save(tmp_path / "model.pth", cfg, labels=LabelSet(("a", "b", "c")))
    with pytest.raises(UserError, match=r"NUM_CLASSES is 2, but the checkpoint .* has 3 classes"):
        Predictor(tmp_path / "model.pth")


def test_labels_come_from_the_data_set_of_the_config_otherwise(tmp_path, cfg):
    cfg.DATASETS.TEST = ("ade20k_sem_seg_val",)
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 150
    save(tmp_path / "model.pth", cfg, labels=LabelSet(()))
    contents = torch.load(tmp_path / "model.pth")
    del contents["labels"]
    torch.save(contents, tmp_path / "model.pth")
    predictor = Predictor(tmp_path / "model.pth")
    assert predictor.labels.num_classes == 150
    assert predictor.labels.names[0] == "wall"


def test_classes_are_numbered_where_nothing_names_them(cfg, monkeypatch):
    said = warnings_of(monkeypatch)
    predictor = Predictor(cfg)
    assert predictor.labels.names == ("class 0", "class 1")
    assert any("random weights" in text for text in said)


def test_another_normalisation_is_said(tmp_path, cfg, monkeypatch):
    said = warnings_of(monkeypatch)
    save(tmp_path / "model.pth", cfg)
    cfg.MODEL.WEIGHTS = str(tmp_path / "model.pth")
    Predictor(cfg)
    assert said == []
    cfg.MODEL.PIXEL_MEAN = [1.0, 2.0, 3.0]
    Predictor(cfg)
    assert len(said) == 1
    assert "MODEL.PIXEL_MEAN" in said[0]


def test_user_modules_are_imported_only_where_they_are_needed(tmp_path, cfg):
    cfg.IMPORTS = ["no_such_module_anywhere"]
    save(tmp_path / "model.pth", cfg)
    Predictor(tmp_path / "model.pth")
    cfg.MODEL.META_ARCHITECTURE = "Registered by that module"
    save(tmp_path / "model.pth", cfg)
    with pytest.raises(UserError, match="no_such_module_anywhere"):
        Predictor(tmp_path / "model.pth")


def test_user_modules_bring_parts_of_the_model(tmp_path, cfg, monkeypatch):
    module = tmp_path / "my_parts.py"
    module.write_text(
        "from mask2former.modeling import META_ARCH\n"
        "META_ARCH.register(lambda cfg, labels: META_ARCH.get('Tiny')(cfg, labels), name='Mine')\n"
    )
    cfg.IMPORTS = [str(module)]
    cfg.MODEL.META_ARCHITECTURE = "Mine"
    save(tmp_path / "model.pth", cfg)
    try:
        assert isinstance(Predictor(tmp_path / "model.pth").model, Tiny)
    finally:
        META_ARCH._obj_map.pop("Mine", None)


def test_data_sets_come_from_user_modules(tmp_path, cfg):
    cfg.IMPORTS = ["no_such_module_anywhere"]
    cfg.DATASETS.TEST = ("registered_by_that_module",)
    with pytest.raises(UserError, match="no_such_module_anywhere"):
        Predictor(cfg)


def test_options_have_the_last_word(tmp_path, cfg):
    save(tmp_path / "model.pth", cfg)
    changed = checkpoint_config(tmp_path / "model.pth", ["INPUT.MIN_SIZE_TEST", "33"])
    assert changed.INPUT.MIN_SIZE_TEST == 33
    assert changed.MODEL.WEIGHTS == str(tmp_path / "model.pth")


def test_a_recipe_that_leaves_the_number_of_classes_out_takes_the_checkpoint_s(tmp_path, cfg):
    save(tmp_path / "model.pth", cfg)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("MODEL: {META_ARCHITECTURE: Tiny, DEVICE: cpu}\nDATASETS: {TEST: [nowhere_valid]}\n")
    predictor = Predictor(load_cfg(recipe, ["MODEL.WEIGHTS", str(tmp_path / "model.pth")]))
    assert predictor.cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 2 and predictor.labels == LABELS


def test_a_data_set_of_other_classes_is_refused(tmp_path, cfg):
    save(tmp_path / "model.pth", cfg)
    cfg.merge_from_list(
        ["MODEL.WEIGHTS", str(tmp_path / "model.pth"), "DATASETS.TEST", "[cityscapes_fine_sem_seg_val]"]
    )
    with pytest.raises(UserError, match=r"other classes than those of 'cityscapes_fine_sem_seg_val'.*'dark'.*'road'"):
        Predictor(cfg)


def test_declared_data_of_other_classes_is_refused_where_it_can_be_read(tmp_path, cfg):
    """Nothing has registered the recipe's own data set: the predictor itself looks what its classes are."""
    save(tmp_path / "model.pth", cfg)
    cfg.MODEL.WEIGHTS = str(tmp_path / "model.pth")
    cfg.DATASETS.TEST = ("declared_here_valid",)
    entry = {"ROOT": str(tmp_path / "data"), "CLASSES": ["dark", "grey"]}
    cfg.DATASETS.CUSTOM = CfgNode({"declared_here": entry})
    assert Predictor(cfg).labels == LABELS  # the folder does not exist: its classes do not matter
    (tmp_path / "data" / "valid").mkdir(parents=True)
    try:
        with pytest.raises(UserError, match=r"only in the checkpoint: \['bright'\]; only in the data set: \['grey'\]"):
            Predictor(cfg)
    finally:
        for split in ("train", "valid", "val", "test"):
            DatasetCatalog.remove(f"declared_here_{split}")
            MetadataCatalog.remove(f"declared_here_{split}")
